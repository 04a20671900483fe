#include "trainer/completion.h"

#include <gmock/gmock.h>

#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/tiny_model.h"

namespace pricer {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::IsOkAndHolds;
using testing::StatusIs;
using testing::TempDir;

// A token for each byte, from 3 on.
constexpr int32_t Byte(char c) { return 3 + c; }

class CompletionTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK(testing::WriteTinyCheckpoint(dir_.path()));
    ASSERT_OK_AND_ASSIGN(tokenizer_, Tokenizer::FromDirectory(dir_.path()));
    ASSERT_OK_AND_ASSIGN(prompt_, PromptTemplate::Preset("default", "USD"));
  }

  TempDir dir_;
  std::unique_ptr<Tokenizer> tokenizer_;
  PromptTemplate prompt_;
};

TEST_F(CompletionTest, IsTheWholePriceTheSuffixAndTheEndToken) {
  ASSERT_OK_AND_ASSIGN(CompletionEncoder encoder,
                       CompletionEncoder::Create(prompt_, *tokenizer_, {".00", 2}));
  EXPECT_THAT(encoder.EncodePrice(149.4),
              IsOkAndHolds(ElementsAre(Byte('1'), Byte('4'), Byte('9'), Byte('.'), Byte('0'),
                                       Byte('0'), 2)));
  EXPECT_THAT(encoder.EncodePrice(7),
              IsOkAndHolds(ElementsAre(Byte('7'), Byte('.'), Byte('0'), Byte('0'), 2)));
}

TEST_F(CompletionTest, RoundsHalvesToTheEvenPrice) {
  ASSERT_OK_AND_ASSIGN(CompletionEncoder encoder,
                       CompletionEncoder::Create(prompt_, *tokenizer_, {"", std::nullopt}));
  EXPECT_THAT(encoder.EncodePrice(2.5), IsOkAndHolds(ElementsAre(Byte('2'))));
  EXPECT_THAT(encoder.EncodePrice(3.5), IsOkAndHolds(ElementsAre(Byte('4'))));
  EXPECT_THAT(encoder.EncodePrice(0.5), IsOkAndHolds(ElementsAre(Byte('0'))));
  EXPECT_THAT(encoder.EncodePrice(999.49),
              IsOkAndHolds(ElementsAre(Byte('9'), Byte('9'), Byte('9'))));
}

TEST_F(CompletionTest, RefusesPricesThatAreNotRead) {
  ASSERT_OK_AND_ASSIGN(CompletionEncoder encoder,
                       CompletionEncoder::Create(prompt_, *tokenizer_, {"", std::nullopt}));
  for (double price : {999.5, 1e9, 1e300}) {
    EXPECT_THAT(encoder.EncodePrice(price),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("is beyond 999")));
  }
}

}  // namespace
}  // namespace pricer
