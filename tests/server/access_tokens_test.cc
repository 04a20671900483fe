#include "server/access_tokens.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace pricer {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::IsOkAndHolds;
using ::testing::Not;
using testing::StatusIs;
using testing::TempDir;

constexpr char kShop[] = "shop-secret-0123456789";
constexpr char kOperator[] = "operator-secret-012345";

std::string TokenJson(const std::string& name, const std::string& secret,
                      const std::string& permissions) {
  return absl::StrCat(R"({"name": ")", name, R"(", "secret": ")", secret, R"(", "permissions": )",
                      permissions, "}");
}
std::string File(const std::string& tokens) {
  return absl::StrCat(R"({"tokens": [)", tokens, "]}");
}

TEST(AccessTokensTest, SayWhatIsWrongAndNeverASecret) {
  const auto expect = [](const std::string& json, const std::string& words) {
    EXPECT_THAT(ParseAccessTokens(json, "tokens.json"),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         AllOf(HasSubstr("tokens.json"), HasSubstr(words), Not(HasSubstr("s3cr")))))
        << json;
  };
  const std::string good = "s3cret-0123456789abc";
  expect("", "JSON");
  expect("s3cret", "JSON");
  expect("[]", "object");
  expect("{}", "tokens");
  expect(R"({"tokens": {}})", "list");
  expect(R"({"tokens": [7]})", "tokens[0]");
  expect(File(TokenJson("Shop", good, "[]")), "tokens[0].name");
  expect(File(TokenJson("shop", "s3cret", "[]")), "at least 16 printable ASCII characters, got 6");
  expect(File(TokenJson("shop", "s3cret 0123456789abc", "[]")), "printable");
  expect(File(R"({"name": "shop", "permissions": []})"), "tokens[0].secret");
  expect(File(R"({"name": "shop", "secret": ["s3cret-0123456789abc"], "permissions": []})"),
         "tokens[0].secret");
  expect(File(TokenJson("shop", good, R"(["all"])")), "expected predict, admin or metrics");
  expect(File(TokenJson("shop", good, R"("predict")")), "tokens[0].permissions");
  expect(File(R"({"name": "shop", "sekret": "s3cret-0123456789abc"})"), "sekret");
  expect(File(TokenJson("shop", good, "[]") + "," + TokenJson("shop", good + "2", "[]")),
         "tokens[1]: has the name of tokens[0]");
  expect(File(TokenJson("shop", good, "[]") + "," + TokenJson("till", good, "[]")),
         "tokens[1]: has the secret of tokens[0]");
}

class TokenKeeperTest : public ::testing::Test {
 protected:
  void Write(const std::string& text) { ASSERT_OK(WriteFile(path_, text)); }

  const TempDir dir_;
  const std::string path_ = dir_.File("tokens.json");
  const std::string shop_ = TokenJson("shop", kShop, R"(["predict"])");
  const std::string operator_ = TokenJson("operator", kOperator, R"(["admin", "metrics"])");
};

TEST_F(TokenKeeperTest, ATokenMayDoWhatItsPermissionsSay) {
  Write(File(shop_ + "," + operator_));
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<TokenKeeper> tokens, TokenKeeper::Open(path_));
  EXPECT_THAT(tokens->Check(kShop, Permission::kPredict), IsOkAndHolds("shop"));
  EXPECT_THAT(tokens->Check(kOperator, Permission::kAdmin), IsOkAndHolds("operator"));
  EXPECT_THAT(tokens->Check(kOperator, Permission::kMetrics), IsOkAndHolds("operator"));
  EXPECT_THAT(
      tokens->Check(kShop, Permission::kAdmin),
      StatusIs(absl::StatusCode::kPermissionDenied, AllOf(HasSubstr("shop"), HasSubstr("admin"))));
  for (const char* const wrong :
       {"", "shop", "shop-secret-0123456788", "shop-secret-01234567890"}) {
    EXPECT_THAT(tokens->Check(wrong, Permission::kPredict),
                StatusIs(absl::StatusCode::kUnauthenticated, Not(HasSubstr("secret"))));
  }
}

TEST_F(TokenKeeperTest, FollowsTheFileAndKeepsWhatItHadWhereThatIsBroken) {
  Write(File(shop_));
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<TokenKeeper> tokens, TokenKeeper::Open(path_));
  Write("{");
  tokens->Poll();
  EXPECT_OK(tokens->Check(kShop, Permission::kPredict));
  std::filesystem::remove(path_);
  tokens->Poll();
  EXPECT_OK(tokens->Check(kShop, Permission::kPredict));
  Write(File(operator_));
  tokens->Poll();
  EXPECT_THAT(tokens->Check(kShop, Permission::kPredict),
              StatusIs(absl::StatusCode::kUnauthenticated));
  EXPECT_OK(tokens->Check(kOperator, Permission::kAdmin));
}

TEST_F(TokenKeeperTest, AFileThatCannotBeUsedIsAnErrorAtTheStart) {
  EXPECT_THAT(TokenKeeper::Open(path_), StatusIs(absl::StatusCode::kNotFound, HasSubstr(path_)));
  Write("{");
  EXPECT_THAT(TokenKeeper::Open(path_),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(path_)));
}

}  // namespace
}  // namespace pricer
