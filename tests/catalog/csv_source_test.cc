#include "catalog/csv_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "base/file.h"
#include "catalog/csv_record.h"
#include "catalog/item_reader.h"
#include "catalog/random.h"
#include "tests/catalog/gzip.h"
#include "tests/catalog/rows.h"
#include "tests/catalog/scratch_file.h"
#include "tests/catalog/zstd.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace pricer {
namespace {

using ::pricer::testing::AllColumns;
using ::pricer::testing::GzipOf;
using ::pricer::testing::IsOkAndHolds;
using ::pricer::testing::RowsOf;
using ::pricer::testing::StatusIs;
using ::pricer::testing::TempDir;
using ::pricer::testing::WriteScratchFile;
using ::pricer::testing::ZstdOf;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// One way to write a value.
std::string Written(const std::string& text, char delimiter, Random* random) {
  const bool needs_quotes =
      text.empty() || text.find_first_of(std::string("\"\r\n") + delimiter) != std::string::npos;
  if (!needs_quotes && random->Index(2) == 0) return text;
  return absl::StrCat("\"", absl::StrReplaceAll(text, {{"\"", "\"\""}}), "\"");
}

class CsvSourceTest : public ::testing::Test {
 protected:
  absl::StatusOr<std::vector<std::string>> Rows(const std::string& contents,
                                                const RowSourceOptions& options = {}) {
    WriteScratchFile(path_, contents);
    return RowsOf(path_, AllColumns(), options);
  }

  TempDir dir_;
  std::string path_ = dir_.File("items.csv");
};

TEST_F(CsvSourceTest, ReadsRecordsInOrder) {
  EXPECT_THAT(Rows("id,other,title,price\nx,1,a,2\ny,2,b,3.5\n"),
              IsOkAndHolds(ElementsAre("1: id=x title=a price=2", "2: id=y title=b price=3.5")));
  EXPECT_THAT(Rows("title,price\na,2"), IsOkAndHolds(ElementsAre("1: title=a price=2")));
  EXPECT_THAT(Rows("title\na\n"), IsOkAndHolds(ElementsAre("1: title=a")));
}

TEST_F(CsvSourceTest, ReadsQuotedDelimitersQuotesAndLineEnds) {
  EXPECT_THAT(Rows("title,\"price\"\n\"a, b\",\"1\"\n\"say \"\"hi\"\"\",2\n\"two\nlines\",3\n"
                   "\"two\r\nlines\",4\n\"\"\"\",5\n5\" pipe,6\n\"a\" b,7\n"),
              IsOkAndHolds(ElementsAre("1: title=a, b price=1", "2: title=say \"hi\" price=2",
                                       "3: title=two\nlines price=3",
                                       "4: title=two\r\nlines price=4", "5: title=\" price=5",
                                       "6: title=5\" pipe price=6", "7: title=a b price=7")));
}

TEST_F(CsvSourceTest, PassesOverTheByteOrderMarkAndEmptyLines) {
  EXPECT_THAT(Rows("\xEF\xBB\xBF\r\n\ntitle,price\r\n\r\na,1\r\n\r\n\r\nb\r\nc,3\r\n\r\n"),
              IsOkAndHolds(ElementsAre("1: title=a price=1",
                                       "2: : expected 2 columns as in the header, got 1",
                                       "3: title=c price=3")));
  EXPECT_THAT(Rows("\xEF\xBB\xBF\"title\",price\ra,1\rb,2"),
              IsOkAndHolds(ElementsAre("1: title=a price=1", "2: title=b price=2")));
}

TEST_F(CsvSourceTest, AnEmptyValueIsEmpty) {
  EXPECT_THAT(Rows("title,brand,price\na,,\n\"\",b,1\n,,\n"),
              IsOkAndHolds(ElementsAre("1: title=a brand= price=", "2: title= brand=b price=1",
                                       "3: title= brand= price=")));
}

TEST_F(CsvSourceTest, FindsTheDelimiterInTheHeader) {
  for (const char* delimiter : {",", ";", "\t"}) {
    const auto row = [&](const std::vector<std::string>& values) {
      return absl::StrJoin(values, delimiter) + "\n";
    };
    EXPECT_THAT(Rows(row({"title", "brand", "price"}) + row({"\"a,;\t\"", "b", "1"})),
                IsOkAndHolds(ElementsAre("1: title=a,;\t brand=b price=1")));
  }
  EXPECT_THAT(Rows("title|price\na|1\n", {.csv_delimiter = '|'}),
              IsOkAndHolds(ElementsAre("1: title=a price=1")));
  EXPECT_THAT(Rows("title,price;text\n1,2;3\n", {.csv_delimiter = ';'}),
              IsOkAndHolds(ElementsAre("1: text=3")));
}

TEST_F(CsvSourceTest, RowsOfAnotherWidthAreRejectsInTheirPlace) {
  EXPECT_THAT(Rows("title,price\na\nb,1,\nc,1\n\"d\n\",2,3,4\ne,5\nf"),
              IsOkAndHolds(ElementsAre(
                  "1: : expected 2 columns as in the header, got 1",
                  "2: : expected 2 columns as in the header, got 3", "3: title=c price=1",
                  "4: : expected 2 columns as in the header, got 4", "5: title=e price=5",
                  "6: : expected 2 columns as in the header, got 1")));
}

TEST_F(CsvSourceTest, ValuesThatAreReadMustBeUtf8) {
  EXPECT_THAT(Rows("title,price,other\nab\xE9,1,x\nb,2,\xE9\nc\xC3\xA9,\xFF,x\n"),
              IsOkAndHolds(ElementsAre("1: title: not UTF-8 at byte 3", "2: title=b price=2",
                                       "3: price: not UTF-8 at byte 1")));
}

TEST_F(CsvSourceTest, AHeaderIsNeeded) {
  for (const char* empty : {"", "\n\r\n", "\xEF\xBB\xBF"}) {
    EXPECT_THAT(Rows(empty), StatusIs(absl::StatusCode::kInvalidArgument,
                                      AllOf(HasSubstr(path_), HasSubstr("expected a header"))));
  }
  EXPECT_THAT(Rows("title,price"), IsOkAndHolds(IsEmpty()));
  EXPECT_THAT(Rows("title,price\r\n\r\n\r\n"), IsOkAndHolds(IsEmpty()));
  EXPECT_THAT(Rows("\"title,price\n1,2\n"),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("in the header")));
  EXPECT_THAT(Rows(std::string("\xFF\xFEt\0i\0t\0", 8)),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("not UTF-8 at byte 1")));
  EXPECT_THAT(Rows("name,cost\na,1\n"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr(path_), HasSubstr("the columns are \"name\", \"cost\""))));
  EXPECT_THAT(Rows("title," + std::string(3'000'000, 'x') + "\n"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("longer than 1048576 bytes")));
  EXPECT_THAT(Rows("title" + std::string(10'000, ',') + "\n"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("the header has 10001")));
}

TEST_F(CsvSourceTest, LongRowsAreRejectsInTheirPlaceHoweverLong) {
  for (const size_t size : {101, 5'000, 300'000, 2'000'000}) {
    for (const std::string& value :
         {std::string(size, 'x'), "\"" + std::string(size, '\n') + "\"", std::string(size, ',')}) {
      const bool is_wide = value[0] == ',' && size < 300'000;
      EXPECT_THAT(
          Rows(absl::StrCat("title,price\na,1\n", value, ",2\nb,3\n", value, ",4"),
               {.max_row_bytes = 100}),
          IsOkAndHolds(ElementsAre(
              "1: title=a price=1",
              is_wide ? absl::StrCat("2: : expected 2 columns as in the header, got ", size + 2)
                      : "2: : row longer than 100 bytes",
              "3: title=b price=3", ::testing::StartsWith("4: : "))))
          << size << value[0];
    }
  }
  EXPECT_THAT(Rows("title,price\n" + std::string(98, 'x') + ",12\n", {.max_row_bytes = 100}),
              IsOkAndHolds(ElementsAre("1: title=" + std::string(98, 'x') + " price=12")));
}

TEST_F(CsvSourceTest, AQuoteThatIsNeverClosedIsDataLoss) {
  for (const size_t rows : {0, 10, 100'000}) {
    std::string tail;
    for (size_t i = 0; i < rows; ++i) tail += "good,1\n";
    EXPECT_THAT(Rows("title,price\na,1\n\"b,2\n" + tail),
                StatusIs(absl::StatusCode::kDataLoss,
                         AllOf(HasSubstr(path_), HasSubstr("row 2: a quoted value is not closed"))))
        << rows;
  }
}

TEST_F(CsvSourceTest, BlocksEndAnywhere) {
  // Longer than several blocks, and shifted so that all that can be cut is cut.
  for (int shift = 0; shift < 40; ++shift) {
    std::string contents = "title,price\n" + std::string(shift, 'x') + ",1\r\n";
    std::vector<std::string> expected = {"1: title=" + std::string(shift, 'x') + " price=1"};
    for (int number = 2; contents.size() < 600'000; ++number) {
      const std::string filling(7001, 'y');
      if (number % 3 == 0) {
        contents += filling + "\r\n";
        expected.push_back(absl::StrCat(number, ": : expected 2 columns as in the header, got 1"));
      } else {
        contents += absl::StrCat("\"", filling, "\"\"\r\n\",", number, "\r\n\r\n");
        expected.push_back(absl::StrCat(number, ": title=", filling, "\"\r\n price=", number));
      }
    }
    ASSERT_OK_AND_ASSIGN(const std::vector<std::string> rows, Rows(contents));
    ASSERT_EQ(rows, expected) << shift;
  }
}

// Writes tables of random values in all ways that mean the same and reads them back.
TEST_F(CsvSourceTest, ReadsBackWhatWasWritten) {
  constexpr char kBytes[] = "ab,;\t\"\r\n 1";
  Random random(11);
  for (int table = 0; table < 300; ++table) {
    const char delimiter = kCsvDelimiters[table % 3];
    std::string contents = absl::StrCat("title", std::string(1, delimiter), "price\n");
    std::vector<std::string> expected;
    const int rows = static_cast<int>(random.Index(30));
    for (int row = 1; row <= rows; ++row) {
      std::string texts[2];
      for (std::string& text : texts) {
        for (size_t n = random.Index(6); n > 0; --n) text += kBytes[random.Index(10)];
      }
      expected.push_back(absl::StrCat(row, ": title=", texts[0], " price=", texts[1]));
      contents +=
          absl::StrCat(Written(texts[0], delimiter, &random), std::string(1, delimiter),
                       Written(texts[1], delimiter, &random), random.Index(2) == 0 ? "\n" : "\r\n");
    }
    EXPECT_THAT(Rows(contents, {.csv_delimiter = delimiter}),
                IsOkAndHolds(::testing::ElementsAreArray(expected)))
        << contents;
  }
}

TEST_F(CsvSourceTest, ReadsCompressedTables) {
  std::string contents = "title,price\n";
  for (int i = 0; i < 50'000; ++i) absl::StrAppend(&contents, "a", i, ",", i + 1, "\n");
  for (const auto& [name, bytes] :
       {std::pair("a.csv.gz", GzipOf(contents)), std::pair("a.tsv.zst", ZstdOf(contents)),
        std::pair("a", ZstdOf(contents))}) {
    ASSERT_OK(WriteFile(dir_.File(name), bytes));
    ASSERT_OK_AND_ASSIGN(const std::vector<std::string> rows,
                         RowsOf(dir_.File(name), AllColumns()));
    ASSERT_EQ(rows.size(), 50'000);
    EXPECT_EQ(rows.back(), "50000: title=a49999 price=50000");
  }
  ASSERT_OK(WriteFile(path_, GzipOf(contents).substr(0, 100'000)));
  EXPECT_THAT(RowsOf(path_, AllColumns()),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("truncated")));
}

TEST_F(CsvSourceTest, ItemsOfATableAreThoseOfJsonLines) {
  ASSERT_OK(
      WriteFile(path_,
                "sku;name;cost;description;currency\n7;a;12.5;\"x;y\";usd\n;b; 3;;\n;c;2;;EUR\n"
                "9;d;4;;\n;;5;;\n;e;;;\n"));
  ItemReaderOptions options;
  options.columns = {{"id", "sku"}, {"title", "name"}, {"price", "cost"}};
  ASSERT_OK_AND_ASSIGN(const auto reader, ItemReader::Open(path_, options));
  Item item;
  std::optional<Reject> reject;
  std::vector<std::string> rows;
  for (;;) {
    ASSERT_OK_AND_ASSIGN(const bool more, reader->NextRow(&item, &reject));
    if (!more) break;
    rows.push_back(
        reject.has_value()
            ? absl::StrCat(reader->row(), " ", item.id, " ", reject->field, ": ", reject->reason)
            : absl::StrCat(reader->row(), " ", item.id, " ", ItemText(item), " ", *item.price));
  }
  EXPECT_THAT(rows, ElementsAre("1 7 a\nx;y 12.5", "2 2 cost: not a number: \" 3\"",
                                "3 3 currency: expected USD, got \"EUR\"", "4 9 d 4",
                                "5 5 : empty text", "6 6 cost: missing"));
}

TEST_F(CsvSourceTest, RejectsNameTheRecord) {
  ASSERT_OK(WriteFile(path_, "title,price\n\"a\nb\",1\nc\nd,-2\n"));
  ItemReaderOptions options;
  options.max_reject_share = 0.5;
  options.rejects_path = dir_.File("rejects.jsonl");
  EXPECT_THAT(ReadItems(path_, options),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("2 of 3 rows were rejected, at most 50 % may be; first: row 2: "
                                 "expected 2 columns as in the header, got 1")));
  ASSERT_OK_AND_ASSIGN(const std::string rejects, ReadFile(options.rejects_path));
  EXPECT_THAT(rejects, HasSubstr("\"row\": 3, \"field\": \"price\""));
}

}  // namespace
}  // namespace pricer
