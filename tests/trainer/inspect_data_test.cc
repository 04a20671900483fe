#include "trainer/inspect_data.h"

#include <gmock/gmock.h>

#include <memory>
#include <numeric>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/tiny_model.h"

namespace pricer {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;
using testing::StatusIs;

TEST(SpreadOfTest, IsByNearestRank) {
  std::vector<double> values(100);
  std::iota(values.rbegin(), values.rend(), 1.0);
  const Spread spread = SpreadOf(values);
  EXPECT_EQ(spread.min, 1);
  EXPECT_EQ(spread.median, 50);
  EXPECT_EQ(spread.p90, 90);
  EXPECT_EQ(spread.p99, 99);
  EXPECT_EQ(spread.max, 100);
  EXPECT_EQ(SpreadOf({7}).median, 7);
  EXPECT_EQ(SpreadOf({}).max, 0);
}

TEST(PriceBarsTest, HasAnEdgeAt1And2And5OfEveryDecade) {
  const std::vector<PriceBar> bars = PriceBars({0.7, 1, 1.99, 2, 5, 19.99, 20});
  std::vector<double> lows;
  std::vector<int64_t> items;
  for (const PriceBar& bar : bars) {
    lows.push_back(bar.low);
    items.push_back(bar.items);
  }
  EXPECT_THAT(lows, ElementsAre(0.5, 1, 2, 5, 10, 20));
  EXPECT_THAT(items, ElementsAre(1, 2, 1, 1, 1, 1));
  EXPECT_EQ(bars.back().high, 50);
}

TEST(PriceBarsTest, StaysShortWhateverThePrices) {
  for (const double high : {1e3, 1e9, 1e12, 1e40, 1e300}) {
    const std::vector<PriceBar> bars = PriceBars({1e-3, 5, 70, high});
    EXPECT_LE(bars.size(), 30u);
    int64_t items = 0;
    for (const PriceBar& bar : bars) items += bar.items;
    EXPECT_EQ(items, 4);
    EXPECT_GT(bars.front().items, 0);
    EXPECT_GT(bars.back().items, 0);
    EXPECT_LE(bars.front().low, 1e-3);
    EXPECT_GT(bars.back().high, high);
  }
}

// The tiny tokenizer has a token for each byte.
class InspectDataTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK(testing::WriteTinyCheckpoint(dir_.File("base")));
    ASSERT_OK_AND_ASSIGN(tokenizer_, Tokenizer::FromDirectory(dir_.File("base"), 260));
    ASSERT_OK_AND_ASSIGN(prompt_, PromptTemplate::Preset("default", "USD"));
    wording_ = static_cast<int64_t>(prompt_.Render("").size());
    prompt_.max_prompt_tokens = wording_ + 40;
  }

  std::string Write(const std::string& name, const std::string& text) {
    EXPECT_OK(WriteFile(dir_.File(name), text));
    return dir_.File(name);
  }

  absl::StatusOr<DataInspection> Inspect(const DataInspectionOptions& options) const {
    return InspectData(options, prompt_, *tokenizer_);
  }

  testing::TempDir dir_;
  std::unique_ptr<Tokenizer> tokenizer_;
  PromptTemplate prompt_;
  int64_t wording_ = 0;  // tokens of question and prefix
};

TEST_F(InspectDataTest, DescribesRowsLengthsPricesAndFields) {
  const std::string data = Write("data.jsonl",
                                 "{\"title\":\"ten bytes.\",\"brand\":\"b\",\"price\":3}\n"
                                 "\n"
                                 "{\"title\":\"twenty bytes, almost\",\"price\":30}\n"
                                 "{\"title\":\"no price\"}\n"
                                 "{\"title\":\"negative\",\"price\":-1}\n"
                                 "{\"title\":\"" +
                                     std::string(60, 'x') + "\",\"price\":\"300\"}\n");
  ASSERT_OK_AND_ASSIGN(const DataInspection inspection, Inspect({.data = data}));
  const FileInspection& file = inspection.data;
  EXPECT_EQ(file.rows, 5);
  EXPECT_EQ(file.items, 3);
  EXPECT_EQ(file.rejects, 2);
  ASSERT_EQ(file.first_rejects.size(), 2u);
  EXPECT_EQ(file.first_rejects[0].row, 4);
  EXPECT_EQ(file.first_rejects[0].reject.field, "price");
  EXPECT_EQ(file.first_rejects[1].row, 5);
  EXPECT_EQ(file.tokens.min, wording_ + 12);
  EXPECT_EQ(file.tokens.median, wording_ + 20);
  EXPECT_EQ(file.tokens.max, wording_ + 40);
  EXPECT_EQ(file.total_tokens, 3 * wording_ + 72);
  EXPECT_EQ(file.truncated, 1);
  EXPECT_EQ(file.prices.median, 30);
  EXPECT_THAT(file.missing,
              ElementsAre(Pair("title", 0), Pair("brand", 2), Pair("category", 3),
                          Pair("description", 3), Pair("details", 3), Pair("text", 3)));
  EXPECT_FALSE(inspection.validation.has_value());
  EXPECT_EQ(inspection.leak_share(), 0);
}

TEST_F(InspectDataTest, CountsWhatTheValidationShareWithTheData) {
  std::string train, validation;
  for (int i = 0; i < 20; ++i) {
    absl::StrAppend(&train, "{\"title\":\"product number ", i, "\",\"price\":5}\n");
  }
  absl::StrAppend(&validation, "{\"title\":\"Product number 7.\",\"price\":6}\n",
                  "{\"title\":\"something else\",\"price\":6}\n");
  DataInspectionOptions options;
  options.data = Write("train.jsonl", train + "{\"title\":\"product number 3\",\"price\":5}\n");
  options.validation = Write("validation.jsonl", validation);
  ASSERT_OK_AND_ASSIGN(const DataInspection inspection, Inspect(options));
  EXPECT_EQ(inspection.duplicates.training.exact, 1);
  EXPECT_EQ(inspection.duplicates.training.first_exact[0].row, 21);
  EXPECT_EQ(inspection.duplicates.training.first_exact[0].other_row, 4);
  EXPECT_EQ(inspection.duplicates.leak.exact, 1);
  EXPECT_EQ(inspection.leak_share(), 0.5);
}

// More rows than are read at a time; the numbers of rows stay those of the file.
TEST_F(InspectDataTest, RowsOfManyChunksKeepTheirNumbers) {
  std::string train;
  constexpr int kRows = 2500;
  for (int i = 0; i < kRows; ++i) {
    absl::StrAppend(&train, "{\"title\":\"t", i % (kRows - 1), "\",\"price\":", i + 1, "}\n");
  }
  ASSERT_OK_AND_ASSIGN(const DataInspection inspection,
                       Inspect({.data = Write("train.jsonl", train)}));
  EXPECT_EQ(inspection.data.items, kRows);
  EXPECT_EQ(inspection.data.prices.max, kRows);
  ASSERT_EQ(inspection.duplicates.training.exact, 1);
  EXPECT_EQ(inspection.duplicates.training.first_exact[0].row, kRows);
  EXPECT_EQ(inspection.duplicates.training.first_exact[0].other_row, 1);
}

TEST_F(InspectDataTest, ARowThatMakesNoPromptIsRejectedWithItsReason) {
  // The model lacks the tokens of the bytes from 187 on.
  ASSERT_OK_AND_ASSIGN(tokenizer_, Tokenizer::FromDirectory(dir_.File("base"), 190));
  const std::string data = Write("data.jsonl",
                                 "{\"title\":\"plain\",\"price\":3}\n"
                                 "{\"title\":\"caf\xc3\xa9\",\"price\":3}\n"
                                 "{\"title\":\"no price\"}\n");
  ASSERT_OK_AND_ASSIGN(const DataInspection inspection, Inspect({.data = data}));
  EXPECT_EQ(inspection.data.items, 1);
  ASSERT_EQ(inspection.data.first_rejects.size(), 2u);
  EXPECT_EQ(inspection.data.first_rejects[0].row, 2);
  EXPECT_THAT(inspection.data.first_rejects[0].reject.reason, HasSubstr("below 190"));
  EXPECT_EQ(inspection.data.first_rejects[1].row, 3);
}

TEST_F(InspectDataTest, FailsWhereNoRowIsGoodAndNamesTheFirstReason) {
  const std::string data = Write("data.jsonl", "{\"title\":\"no price\"}\n");
  EXPECT_THAT(Inspect({.data = data}),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("data.jsonl: no item in 1 rows"), HasSubstr("price"))));
  EXPECT_THAT(Inspect({.data = dir_.File("none")}), StatusIs(absl::StatusCode::kNotFound));
}

TEST_F(InspectDataTest, FailsWhereQuestionAndPrefixAreTooLong) {
  prompt_.max_prompt_tokens = 5;
  EXPECT_THAT(Inspect({.data = Write("data.jsonl", "{\"title\":\"t\",\"price\":1}\n")}),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace pricer
