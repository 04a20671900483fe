#include "client/batch_compare.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "base/file.h"
#include "client/batch_row.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace pricer {
namespace {

using ::testing::HasSubstr;
using testing::StatusIs;
using testing::TempDir;

// A row of a job's output; a price of 0 is an error.
std::string Line(int64_t row, const std::string& id, double price, int64_t version = 7) {
  if (price == 0) return BatchErrorLine(row, id, "INTERNAL", "not finite");
  v1::ItemResult result;
  result.mutable_prediction()->set_price(price);
  result.mutable_prediction()->mutable_served_by()->set_adapter("shop");
  result.mutable_prediction()->mutable_served_by()->set_version(version);
  return BatchLine(row, id, result);
}

class BatchCompareTest : public ::testing::Test {
 protected:
  BatchCompareTest() {
    options_.before = dir_.File("before.jsonl");
    options_.after = dir_.File("after.jsonl");
  }
  void Write(const std::vector<std::string>& before, const std::vector<std::string>& after) {
    EXPECT_OK(WriteFile(options_.before, absl::StrJoin(before, "")));
    EXPECT_OK(WriteFile(options_.after, absl::StrJoin(after, "")));
  }

  TempDir dir_;
  CompareOptions options_;
};

TEST_F(BatchCompareTest, TellsWhatHasChangedById) {
  Write({Line(1, "a", 100), Line(2, "b", 100), Line(3, "c", 100), Line(4, "gone", 100),
         Line(5, "failed", 100), Line(6, "was", 0)},
        {Line(1, "new", 5, 8), Line(2, "c", 30, 8), Line(3, "b", 121, 8), Line(4, "a", 100, 8),
         Line(5, "failed", 0), Line(6, "was", 3, 8)});
  ASSERT_OK_AND_ASSIGN(const CompareReport report, CompareBatches(options_));
  EXPECT_EQ(report.both, 3);
  EXPECT_EQ(report.unchanged, 1);
  EXPECT_EQ(report.far, 2);
  EXPECT_EQ(report.only_before, 2);
  EXPECT_EQ(report.only_after, 2);
  EXPECT_EQ(report.failed_before, 1);
  EXPECT_EQ(report.failed_after, 1);
  EXPECT_EQ(report.version_before, "shop/7");
  EXPECT_EQ(report.version_after, "shop/8");
  ASSERT_EQ(report.largest.size(), 2u);
  EXPECT_EQ(report.largest[0].id, "c");
  EXPECT_EQ(report.largest[0].after, 30);
  EXPECT_EQ(report.largest[1].id, "b");
  EXPECT_NEAR(report.mean_log_ratio, (std::log(0.3) + std::log(1.21)) / 3, 1e-9);
  EXPECT_EQ(report.histogram[0], 1);   // up to -50 %
  EXPECT_EQ(report.histogram[5], 1);   // -1 % to 0
  EXPECT_EQ(report.histogram[10], 1);  // 20 % to 50 %
}

TEST_F(BatchCompareTest, TheGateIsTheShareThatHasMovedFar) {
  std::vector<std::string> before;
  std::vector<std::string> after;
  for (int i = 1; i <= 100; ++i) {
    before.push_back(Line(i, absl::StrCat(i), 10));
    after.push_back(Line(i, absl::StrCat(i), i <= 5 ? 13 : 10.5));
  }
  Write(before, after);
  options_.max_far_share = 0.05;
  ASSERT_OK_AND_ASSIGN(CompareReport report, CompareBatches(options_));
  EXPECT_EQ(report.far_share(), 0.05);
  EXPECT_TRUE(report.passes(options_));
  options_.max_far_share = 0.04;
  EXPECT_FALSE(report.passes(options_));
  options_.threshold = 0.31;
  ASSERT_OK_AND_ASSIGN(report, CompareBatches(options_));
  EXPECT_EQ(report.far, 0);
  EXPECT_TRUE(report.passes(options_));
}

TEST_F(BatchCompareTest, WhereNothingCanBeComparedTheGateIsClosed) {
  Write({Line(1, "a", 1)}, {Line(1, "b", 1)});
  ASSERT_OK_AND_ASSIGN(const CompareReport report, CompareBatches(options_));
  EXPECT_FALSE(report.passes(options_));
}

TEST_F(BatchCompareTest, TheLargestMovesAreShownAndNoMore) {
  std::vector<std::string> before;
  std::vector<std::string> after;
  for (int i = 1; i <= 1000; ++i) {
    before.push_back(Line(i, absl::StrCat("id ", i), 1000));
    after.push_back(Line(i, absl::StrCat("id ", i), 1000 + (i * 617) % 1000));
  }
  Write(before, after);
  options_.largest = 3;
  ASSERT_OK_AND_ASSIGN(const CompareReport report, CompareBatches(options_));
  ASSERT_EQ(report.largest.size(), 3u);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(report.largest[i].after, 1999 - i);
  options_.largest = 0;
  ASSERT_OK_AND_ASSIGN(const CompareReport none, CompareBatches(options_));
  EXPECT_TRUE(none.largest.empty());
}

TEST_F(BatchCompareTest, IsTextAndJson) {
  Write({Line(1, "a", 100), Line(2, "b", 100)}, {Line(1, "a", 150, 8), Line(2, "b", 100, 9)});
  ASSERT_OK_AND_ASSIGN(const CompareReport report, CompareBatches(options_));
  const std::string text = report.ToText(options_);
  EXPECT_THAT(text, HasSubstr("2 prices in both: 1 unchanged, 1 moved by more than 20 % (50.00 %"));
  EXPECT_THAT(text, HasSubstr("after:  shop/8 and others, 0 rows with errors"));
  EXPECT_THAT(text, HasSubstr("a: 100 to 150 (+50.0 %)"));
  const auto json = nlohmann::json::parse(report.ToJson(options_));
  EXPECT_EQ(json["both"], 2);
  EXPECT_EQ(json["passes"], true);
  EXPECT_EQ(json["largest"][0]["id"], "a");
  EXPECT_EQ(json["after"]["version"], "shop/8 and others");
}

TEST_F(BatchCompareTest, AFileOfAnotherKindIsNamedWithItsLine) {
  Write({Line(1, "a", 1), "{\"title\":\"lamp\"}\n"}, {});
  EXPECT_THAT(CompareBatches(options_),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("before.jsonl: line 2: expected")));
  options_.before = dir_.File("absent.jsonl");
  EXPECT_THAT(CompareBatches(options_), StatusIs(absl::StatusCode::kNotFound));
  options_.threshold = 0;
  EXPECT_THAT(CompareBatches(options_),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("--far")));
  options_ = {.before = "a", .after = "b", .max_far_share = 2};
  EXPECT_THAT(options_.Validate(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("--max-far-share")));
}

TEST(BatchRowTest, ReadsWhatItWrites) {
  ASSERT_OK_AND_ASSIGN(BatchRow row,
                       ParseBatchLine(absl::StripSuffix(Line(3, "x\"y", 12.5), "\n")));
  EXPECT_EQ(row.row, 3);
  EXPECT_EQ(row.id, "x\"y");
  EXPECT_EQ(row.price, 12.5);
  EXPECT_EQ(row.adapter, "shop");
  EXPECT_EQ(row.version, 7);
  EXPECT_FALSE(row.failed());
  ASSERT_OK_AND_ASSIGN(row, ParseBatchLine(absl::StripSuffix(Line(4, "", 0), "\n")));
  EXPECT_TRUE(row.failed());
  EXPECT_EQ(row.id, "");
  EXPECT_EQ(row.error_message, "not finite");
}

TEST(BatchRowTest, IsJsonWhateverIsInIt) {
  for (const std::string& text :
       {std::string("a \"quoted\" one"), std::string("back\\slash"), std::string("tab\tline\n"),
        std::string("\xc3\xa9t\xc3\xa9"), std::string("nul\0", 4), std::string("del\x7f")}) {
    EXPECT_EQ(nlohmann::json::parse(Line(1, text, 1)).at("id"), text);
    EXPECT_EQ(nlohmann::json::parse(BatchErrorLine(1, text, "X", text)).at("error").at("message"),
              text);
  }
  // What is no UTF-8 is replaced.
  EXPECT_EQ(nlohmann::json::parse(Line(1, "\xff", 1)).at("id"), "\xef\xbf\xbd");
  for (const auto& [price, text] :
       std::vector<std::pair<double, std::string>>{{20, "20.0"},
                                                   {1234.56789, "1234.57"},
                                                   {0.1234567, "0.123457"},
                                                   {999999.7, "1e+06"},
                                                   {1.0 / 3, "0.333333"},
                                                   {123456, "123456.0"},
                                                   {0.00001, "1e-05"}}) {
    EXPECT_THAT(Line(1, "a", price), HasSubstr("\"price\":" + text + ","));
  }
}

TEST(BatchRowTest, SaysWhatIsWrong) {
  for (const auto& [line, what] : std::vector<std::pair<std::string, std::string>>{
           {"", "all its members"},
           {"[]", "all its members"},
           {R"({"row":0})", "its number"},
           {R"({"row":1,"id":5,"error":null})", "its id"},
           {R"({"row":1,"id":"a"})", "an error or null"},
           {R"({"row":1,"id":"a","error":{"code":"X"}})", "its error's code and message"},
           {R"({"row":1,"id":"a","error":null,"price":0})", "a price"},
           {R"({"row":1,"id":"a","error":null,"price":1,"adapter":"x"})", "adapter and version"}}) {
    EXPECT_THAT(ParseBatchLine(line), StatusIs(absl::StatusCode::kDataLoss, HasSubstr(what)));
  }
}

}  // namespace
}  // namespace pricer
