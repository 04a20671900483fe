#include "catalog/csv_record.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/strings/string_view.h"

namespace pricer {
namespace {

TEST(CsvRecordScannerTest, ARecordEndsAtTheFirstLineEndOutsideQuotes) {
  const auto length = [](absl::string_view text) { return CsvRecordScanner(",").Scan(text); };
  EXPECT_EQ(length("a,b\nc"), 4);
  EXPECT_EQ(length("a,b\r\nc"), 4);
  EXPECT_EQ(length("a,b"), absl::string_view::npos);
  EXPECT_EQ(length("a,\"b\nc\"\nd"), 8);
  EXPECT_EQ(length("\"a\"\"\n\",b\nc"), 9);
  EXPECT_EQ(length("\"\"\nc"), 3);
  EXPECT_EQ(length("5\" pipe\nc"), 8);
  EXPECT_EQ(length("\"a\" b\"\nc"), 7);
  EXPECT_EQ(length("a;\"b\nc\"\n"), 5);
}

TEST(CsvRecordScannerTest, GoesOnWhereItStoppedAtEveryByte) {
  const std::string text = "x,\"a\"\"\r\n,\",\"\"\n";
  for (size_t cut = 0; cut < text.size(); ++cut) {
    CsvRecordScanner scanner(",");
    EXPECT_EQ(scanner.Scan(text.substr(0, cut)), absl::string_view::npos) << cut;
    EXPECT_EQ(scanner.Scan(text.substr(cut)), text.size() - cut) << cut;
  }
}

TEST(CsvRecordScannerTest, TellsWhetherAQuoteIsOpen) {
  const auto open = [](absl::string_view text) {
    CsvRecordScanner scanner(",");
    scanner.Scan(text);
    return scanner.in_quotes();
  };
  EXPECT_TRUE(open("a,\"b"));
  EXPECT_TRUE(open("\"a\"\""));
  EXPECT_FALSE(open("\"a\""));
  EXPECT_FALSE(open("a\"b"));
  EXPECT_FALSE(open("\"a\"b\""));
}

TEST(DetectCsvDelimiterTest, TakesTheMostFrequentOutsideQuotes) {
  EXPECT_EQ(DetectCsvDelimiter("id,title,price\n"), ',');
  EXPECT_EQ(DetectCsvDelimiter("id;title;price\r\n"), ';');
  EXPECT_EQ(DetectCsvDelimiter("id\ttitle\tprice"), '\t');
  EXPECT_EQ(DetectCsvDelimiter("id;\"a,b,c,d\";price"), ';');
  EXPECT_EQ(DetectCsvDelimiter("id\t\"a\"\";;;\"\tprice, net"), '\t');
}

TEST(DetectCsvDelimiterTest, PrefersCommaThenSemicolonAmongEquals) {
  EXPECT_EQ(DetectCsvDelimiter("title"), ',');
  EXPECT_EQ(DetectCsvDelimiter("a,b;c\td"), ',');
  EXPECT_EQ(DetectCsvDelimiter("a\tb;c"), ';');
}

}  // namespace
}  // namespace pricer
