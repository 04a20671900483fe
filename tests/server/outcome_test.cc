#include "server/outcome.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/testing/status_matchers.h"

namespace pricer {
namespace {

using ::testing::HasSubstr;
using testing::StatusIs;

const PredictedPrice kPredicted = {
    .adapter = {"toys", 12}, .price = 19.99, .low = 10.5, .high = 30};

TEST(OutcomeTokenTest, StandsForThePrediction) {
  const std::string token = OutcomeToken(kPredicted, "digest");
  EXPECT_LT(token.size(), 100u);
  ASSERT_OK_AND_ASSIGN(const AdapterKey key, AdapterOfToken(token));
  EXPECT_EQ(key, kPredicted.adapter);
  ASSERT_OK_AND_ASSIGN(const PredictedPrice read, ReadOutcomeToken(token, "digest"));
  EXPECT_EQ(read.adapter, kPredicted.adapter);
  EXPECT_EQ(read.price, 19.99);
  EXPECT_EQ(read.low, 10.5);
  EXPECT_EQ(read.high, 30);
  EXPECT_TRUE(read.has_interval());
  const std::string base = OutcomeToken({.adapter = BaseKey(), .price = 1}, "digest");
  EXPECT_FALSE(ReadOutcomeToken(base, "digest")->has_interval());
}

TEST(OutcomeTokenTest, IsOfOneAdapterVersionAndNoOther) {
  const std::string token = OutcomeToken(kPredicted, "digest");
  EXPECT_THAT(ReadOutcomeToken(token, "other digest"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("outcome_token")));
}

TEST(OutcomeTokenTest, EveryChangeOfACharacterIsSeen) {
  const std::string token = OutcomeToken(kPredicted, "digest");
  for (size_t i = 0; i < token.size(); ++i) {
    for (const char c : {'A', 'b', '_', '!'}) {
      std::string changed = token;
      changed[i] = c;
      const absl::StatusOr<PredictedPrice> read = ReadOutcomeToken(changed, "digest");
      // The last character may have bits that stand for nothing.
      EXPECT_TRUE(!read.ok() || changed == token || i + 1 == token.size()) << i << " " << c;
    }
  }
  for (const std::string& bad : {std::string(), std::string("AQ"), token.substr(0, 40),
                                 std::string(200, 'A'), std::string("not base64!")}) {
    EXPECT_FALSE(ReadOutcomeToken(bad, "digest").ok()) << bad;
  }
}

}  // namespace
}  // namespace pricer
