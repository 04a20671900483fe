#include "catalog/item_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/file.h"
#include "catalog/item_json.h"
#include "tests/catalog/gzip.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace pricer {
namespace {

using ::pricer::testing::GzipOf;
using ::pricer::testing::IsOkAndHolds;
using ::pricer::testing::StatusIs;
using ::pricer::testing::TempDir;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr char kGood[] = "{\"title\": \"t\", \"price\": 2}\n";
constexpr char kBad[] = "{\"title\": \"t\", \"price\": -2}\n";

std::string Repeat(const std::string& line, int times) {
  std::string lines;
  for (int i = 0; i < times; ++i) lines += line;
  return lines;
}

class ItemReaderTest : public ::testing::Test {
 protected:
  ItemReaderTest() : path_(dir_.File("items.jsonl")), rejects_path_(dir_.File("rejects.jsonl")) {
    options_.rejects_path = rejects_path_;
  }

  absl::StatusOr<std::vector<Item>> Read(const std::string& contents) {
    EXPECT_OK(WriteFile(path_, contents));
    summary_ = {};
    return ReadItems(path_, options_, &summary_);
  }

  // "row field: reason" of each line in the rejects file.
  std::vector<std::string> Rejects() {
    std::vector<std::string> rejects;
    const absl::StatusOr<std::string> contents = ReadFile(rejects_path_);
    if (!contents.ok()) return rejects;
    for (const absl::string_view line : absl::StrSplit(*contents, '\n', absl::SkipEmpty())) {
      const auto json = nlohmann::json::parse(line);
      EXPECT_EQ(json["file"], path_);
      rejects.push_back(absl::StrCat(json["row"].get<int>(), " ", json["field"].get<std::string>(),
                                     ": ", json["reason"].get<std::string>()));
    }
    return rejects;
  }

  TempDir dir_;
  std::string path_;
  std::string rejects_path_;
  ItemReaderOptions options_;
  ReadSummary summary_;
};

TEST_F(ItemReaderTest, ReadsItemsInOrder) {
  ASSERT_OK_AND_ASSIGN(
      const std::vector<Item> items,
      Read("{\"title\": \"a\", \"price\": 1}\r\n{\"title\": \"b\", \"price\": 2}"));
  ASSERT_EQ(items.size(), 2);
  EXPECT_EQ(items[0].title, "a");
  EXPECT_EQ(items[0].id, "1");
  EXPECT_EQ(items[1].title, "b");
  EXPECT_EQ(items[1].id, "2");
  EXPECT_EQ(summary_.rows, 2);
  EXPECT_EQ(summary_.rejects, 0);
  EXPECT_FALSE(std::filesystem::exists(rejects_path_));
}

TEST_F(ItemReaderTest, ReadsTheSameFromGzip) {
  Item item;
  item.id = "x";
  item.title = "caf\xC3\xA9 \"quoted\"";
  item.price = 3.25;
  item.currency = "USD";
  const std::string lines = Repeat(ItemToJson(item) + "\n", 5000);
  ASSERT_OK_AND_ASSIGN(const std::vector<Item> items, Read(GzipOf(lines)));
  ASSERT_EQ(items.size(), 5000);
  EXPECT_EQ(items[4999].title, item.title);
  EXPECT_EQ(items[4999].price, item.price);
}

TEST_F(ItemReaderTest, AnEmptyFileHasNoItems) {
  EXPECT_THAT(Read(""), IsOkAndHolds(IsEmpty()));
  EXPECT_THAT(Read("\n \n\t\r\n"), IsOkAndHolds(IsEmpty()));
  EXPECT_EQ(summary_.rows, 0);
}

TEST_F(ItemReaderTest, BlankLinesCountInRowNumbersButAreNoRows) {
  options_.max_reject_share = 1;
  ASSERT_OK_AND_ASSIGN(const std::vector<Item> items,
                       Read(absl::StrCat("\n", kGood, "\n\n", kBad, "  \n", kGood)));
  ASSERT_EQ(items.size(), 2);
  EXPECT_EQ(items[0].id, "2");
  EXPECT_EQ(items[1].id, "7");
  EXPECT_EQ(summary_.rows, 3);
  EXPECT_THAT(Rejects(), ElementsAre("5 price: not above zero: \"-2\""));
}

TEST_F(ItemReaderTest, NamesFileRowFieldAndReasonOfEachReject) {
  options_.max_reject_share = 1;
  options_.max_line_bytes = 60;
  ASSERT_OK_AND_ASSIGN(
      const std::vector<Item> items,
      Read(absl::StrCat("not json\n", "[]\n", "{\"title\": \"\xFF\"}\n", kGood,
                        "{\"title\": \" \", \"price\": 1}\n", "{\"title\": \"t\"}\n",
                        "{\"title\": \"t\", \"price\": \"ten\"}\n",
                        "{\"title\": \"t\", \"price\": 1e999}\n",
                        "{\"title\": \"t\", \"price\": 0}\n",
                        "{\"title\": \"t\", \"price\": 1, \"currency\": \"EUR\"}\n",
                        "{\"title\": 5, \"price\": 1}\n", "{\"title\": \"", std::string(100, 'x'),
                        "\", \"price\": 1}\n", kGood)));
  EXPECT_EQ(items.size(), 2);
  EXPECT_EQ(summary_.rows, 13);
  EXPECT_EQ(summary_.rejects, 11);
  EXPECT_THAT(
      Rejects(),
      ElementsAre("1 : not JSON: Invalid value at byte 2", "2 : not a JSON object",
                  "3 : not UTF-8 at byte 12", "5 : empty text", "6 price: missing",
                  "7 price: not a number: \"ten\"", "8 price: not finite: \"1e999\"",
                  "9 price: not above zero: \"0\"", "10 currency: expected USD, got \"EUR\"",
                  "11 title: expected a string, got a number", "12 : line longer than 60 bytes"));
}

TEST_F(ItemReaderTest, StopsAtTheEndWhenMoreThanTheShareWasRejected) {
  EXPECT_OK(Read(Repeat(kGood, 99) + kBad));
  EXPECT_THAT(
      Read(Repeat(kGood, 98) + kBad),
      StatusIs(absl::StatusCode::kFailedPrecondition,
               AllOf(HasSubstr(path_ + ": 1 of 99 rows were rejected, at most 1 % may be"),
                     HasSubstr("first: row 99: price: not above zero"), HasSubstr(rejects_path_))));
  EXPECT_EQ(summary_.rows, 99);
  EXPECT_EQ(summary_.rejects, 1);
  EXPECT_EQ(Rejects().size(), 1);
}

TEST_F(ItemReaderTest, TheShareIsExactWhateverTheRounding) {
  options_.max_reject_share = 0.29;
  EXPECT_OK(Read(Repeat(kGood, 71) + Repeat(kBad, 29)));
  EXPECT_THAT(Read(Repeat(kGood, 70) + Repeat(kBad, 29)),
              StatusIs(absl::StatusCode::kFailedPrecondition));
  options_.max_reject_share = 0;
  EXPECT_OK(Read(kGood));
  EXPECT_THAT(Read(absl::StrCat(kGood, kBad)), StatusIs(absl::StatusCode::kFailedPrecondition));
}

TEST_F(ItemReaderTest, StopsEarlyAfterAHundredRejects) {
  EXPECT_THAT(Read(Repeat(kBad, 5000)),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("101 of 101 rows so far were rejected")));
  EXPECT_EQ(Rejects().size(), 101);
  EXPECT_OK(Read(Repeat(kBad, 100) + Repeat(kGood, 9900)));
  options_.max_reject_share = 1;
  EXPECT_THAT(Read(Repeat(kBad, 5000)), IsOkAndHolds(IsEmpty()));
  EXPECT_EQ(Rejects().size(), 5000);
}

TEST_F(ItemReaderTest, AnErrorIsFinal) {
  ASSERT_OK(WriteFile(path_, absl::StrCat(kBad, kGood)));
  options_.max_reject_share = 0;
  ASSERT_OK_AND_ASSIGN(const auto reader, ItemReader::Open(path_, options_));
  Item item;
  EXPECT_THAT(reader->Next(&item), IsOkAndHolds(true));
  const absl::StatusOr<bool> first = reader->Next(&item);
  EXPECT_THAT(first, StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_EQ(reader->Next(&item).status(), first.status());
}

TEST_F(ItemReaderTest, FinishJudgesAFileThatWasReadInPart) {
  const auto read = [this](const std::string& contents, int good) -> absl::Status {
    EXPECT_OK(WriteFile(path_, contents));
    const auto reader = ItemReader::Open(path_, options_);
    EXPECT_OK(reader);
    Item item;
    for (int i = 0; i < good; ++i) EXPECT_THAT((*reader)->Next(&item), IsOkAndHolds(true));
    const absl::Status status = (*reader)->Finish();
    EXPECT_EQ((*reader)->Finish(), status);
    return status;
  };
  // One of a few rows may be bad where one of a hundred may.
  EXPECT_OK(read(kBad + Repeat(kGood, 50), 5));
  EXPECT_THAT(Rejects(), ElementsAre("1 price: not above zero: \"-2\""));
  EXPECT_THAT(read(Repeat(kBad, 2) + Repeat(kGood, 50), 5),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("2 of 7 rows so far were rejected"), HasSubstr("row 1"))));
  EXPECT_EQ(Rejects().size(), 2);
  EXPECT_OK(read(Repeat(kBad, 2) + Repeat(kGood, 300), 198));
  options_.max_reject_share = 0;
  EXPECT_THAT(read(kBad + Repeat(kGood, 50), 5), StatusIs(absl::StatusCode::kFailedPrecondition));
}

TEST_F(ItemReaderTest, RowsThatTheCallerRejectsCountLikeTheOthers) {
  ASSERT_OK(WriteFile(path_, Repeat(kGood, 150)));
  ASSERT_OK_AND_ASSIGN(const auto reader, ItemReader::Open(path_, options_));
  Item item;
  ASSERT_THAT(reader->Next(&item), IsOkAndHolds(true));
  ASSERT_OK(reader->RejectRow(reader->row(), {"", "too odd"}));
  ASSERT_OK(reader->Finish());
  EXPECT_THAT(Rejects(), ElementsAre("1 : too odd"));
  for (int i = 2; i <= 101; ++i) {
    ASSERT_THAT(reader->Next(&item), IsOkAndHolds(true));
    const absl::Status status = reader->RejectRow(reader->row(), {"", "too odd"});
    ASSERT_EQ(status.ok(), i <= 100);
  }
  EXPECT_EQ(reader->rejects(), 101);
  EXPECT_THAT(reader->Next(&item),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("row 1: too odd")));
}

TEST_F(ItemReaderTest, WithoutARejectsPathTheErrorStillNamesTheFirstReject) {
  options_.rejects_path = "";
  EXPECT_THAT(Read(kBad), StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("row 1")));
  EXPECT_FALSE(std::filesystem::exists(rejects_path_));
}

TEST_F(ItemReaderTest, TheRejectsOfAnEarlierRunAreRemoved) {
  options_.max_reject_share = 1;
  ASSERT_OK(Read(kBad));
  EXPECT_TRUE(std::filesystem::exists(rejects_path_));
  ASSERT_OK(Read(kGood));
  EXPECT_FALSE(std::filesystem::exists(rejects_path_));
}

TEST_F(ItemReaderTest, ACutGzipFileIsDataLossAndKeepsItsRejects) {
  std::string lines;
  for (int i = 0; i < 20'000; ++i) {
    lines += absl::StrCat("{\"title\": \"", i * 7919 % 100'003, "\", \"price\": ", i, "}\n");
  }
  const std::string whole = GzipOf(lines);
  EXPECT_THAT(Read(whole.substr(0, whole.size() / 2)),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr(path_)));
  EXPECT_THAT(Rejects(), ElementsAre("1 price: not above zero: \"0\""));
}

TEST_F(ItemReaderTest, UsesTheMappingAndTheCurrency) {
  options_.columns = {{"title", "name"}, {"price", "cost"}};
  options_.currency = "EUR";
  ASSERT_OK_AND_ASSIGN(const std::vector<Item> items,
                       Read(R"({"name": "n", "cost": "4.5", "currency": "EUR"})"));
  ASSERT_EQ(items.size(), 1);
  EXPECT_EQ(items[0].title, "n");
  EXPECT_EQ(items[0].price, 4.5);
  EXPECT_EQ(items[0].currency, "EUR");
}

TEST_F(ItemReaderTest, NextRowAnswersEveryLineInItsPlaceWithoutALimit) {
  ASSERT_OK(WriteFile(path_, absl::StrCat(Repeat(kBad, 300), "\n", kGood)));
  ASSERT_OK_AND_ASSIGN(const auto reader, ItemReader::Open(path_, options_));
  Item item;
  std::optional<Reject> reject;
  for (int i = 1; i <= 300; ++i) {
    ASSERT_THAT(reader->NextRow(&item, &reject), IsOkAndHolds(true));
    ASSERT_TRUE(reject.has_value());
    EXPECT_EQ(reject->field, "price");
    EXPECT_EQ(reader->row(), i);
  }
  ASSERT_THAT(reader->NextRow(&item, &reject), IsOkAndHolds(true));
  ASSERT_TRUE(reject.has_value());
  EXPECT_EQ(reject->reason, "blank line");
  EXPECT_EQ(reader->row(), 301);
  ASSERT_THAT(reader->NextRow(&item, &reject), IsOkAndHolds(true));
  EXPECT_FALSE(reject.has_value());
  EXPECT_EQ(item.price, 2);
  EXPECT_EQ(reader->row(), 302);
  EXPECT_THAT(reader->NextRow(&item, &reject), IsOkAndHolds(false));
  EXPECT_EQ(reader->rows(), 302);
  EXPECT_EQ(reader->rejects(), 301);
}

TEST_F(ItemReaderTest, SkipRowPassesOverARowWhateverIsInIt) {
  ASSERT_OK(WriteFile(path_, absl::StrCat(kGood, "broken\n\n", kGood)));
  ASSERT_OK_AND_ASSIGN(const auto reader, ItemReader::Open(path_, options_));
  Item item;
  std::optional<Reject> reject;
  for (int i = 0; i < 3; ++i) EXPECT_THAT(reader->SkipRow(), IsOkAndHolds(true));
  ASSERT_THAT(reader->NextRow(&item, &reject), IsOkAndHolds(true));
  EXPECT_FALSE(reject.has_value());
  EXPECT_EQ(item.price, 2);
  EXPECT_EQ(reader->row(), 4);
  EXPECT_EQ(reader->rows(), 4);
  EXPECT_EQ(reader->rejects(), 0);
  EXPECT_THAT(reader->SkipRow(), IsOkAndHolds(false));
  EXPECT_EQ(reader->rows(), 4);
}

TEST_F(ItemReaderTest, NextRowGivesNoRowTheIdOfAnother) {
  options_.max_line_bytes = 60;
  ASSERT_OK(WriteFile(path_, absl::StrCat("{\"id\": \"a\", \"title\": \"t\", \"price\": 1}\n", "\n",
                                          std::string(100, 'x'), "\n")));
  ASSERT_OK_AND_ASSIGN(const auto reader, ItemReader::Open(path_, options_));
  Item item;
  std::optional<Reject> reject;
  for (const char* id : {"a", "", ""}) {
    ASSERT_THAT(reader->NextRow(&item, &reject), IsOkAndHolds(true));
    EXPECT_EQ(item.id, id);
  }
}

TEST_F(ItemReaderTest, ReadsPairsWhereTheyAreAskedFor) {
  Item pair;
  pair.id = "x";
  pair.prompt = "What?\n";
  pair.completion = " 12";
  options_.pairs = true;
  ASSERT_OK_AND_ASSIGN(const std::vector<Item> items,
                       Read(absl::StrCat(ItemToJson(pair), "\n", kGood)));
  ASSERT_EQ(items.size(), 2);
  EXPECT_EQ(items[0].prompt, pair.prompt);
  EXPECT_EQ(items[0].completion, pair.completion);
  EXPECT_FALSE(items[0].price.has_value());
  EXPECT_EQ(items[1].prompt, "");
  options_ = {};
  EXPECT_THAT(Read(ItemToJson(pair)), StatusIs(absl::StatusCode::kFailedPrecondition));
}

TEST_F(ItemReaderTest, RefusesWrongOptionsAndMissingFiles) {
  EXPECT_THAT(ItemReader::Open("/no/such/file", options_), StatusIs(absl::StatusCode::kNotFound));
  options_.max_reject_share = 1.5;
  EXPECT_THAT(Read(kGood),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("max_reject_share")));
  options_ = {};
  options_.max_line_bytes = 0;
  EXPECT_THAT(Read(kGood), StatusIs(absl::StatusCode::kInvalidArgument));
  options_ = {};
  options_.currency = "dollars";
  EXPECT_THAT(Read(kGood), StatusIs(absl::StatusCode::kInvalidArgument));
  for (const char delimiter : {'"', '\n', '\r', '\xE9'}) {
    options_ = {};
    options_.csv_delimiter = delimiter;
    EXPECT_THAT(Read(kGood),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("csv_delimiter")));
  }
  options_ = {};
  options_.columns = {{"prise", "x"}};
  EXPECT_THAT(Read(kGood), StatusIs(absl::StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace pricer
