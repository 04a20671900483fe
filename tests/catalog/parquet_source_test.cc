#include "catalog/parquet_source.h"

#include <arrow/api.h>
#include <arrow/io/file.h>
#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <parquet/arrow/writer.h>

#include <cstring>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "catalog/item_reader.h"
#include "tests/catalog/gzip.h"
#include "tests/catalog/rows.h"
#include "tests/catalog/scratch_file.h"
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
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

struct Column {
  std::string name;
  std::shared_ptr<arrow::Array> array;
};

template <typename Builder, typename Value>
std::shared_ptr<arrow::Array> Values(Builder builder,
                                     const std::vector<std::optional<Value>>& values) {
  for (const std::optional<Value>& value : values) {
    EXPECT_TRUE((value.has_value() ? builder.Append(*value) : builder.AppendNull()).ok());
  }
  return builder.Finish().ValueOrDie();
}

std::shared_ptr<arrow::Array> Strings(const std::vector<std::optional<std::string>>& values) {
  return Values(arrow::StringBuilder(), values);
}

template <typename Builder, typename Value>
std::shared_ptr<arrow::Array> One(Builder builder, const Value& value) {
  return Values(std::move(builder), std::vector<std::optional<Value>>{value});
}

class ParquetSourceTest : public ::testing::Test {
 protected:
  void Write(const std::vector<Column>& columns, int64_t rows_per_group = 1000,
             const std::shared_ptr<parquet::WriterProperties>& properties =
                 parquet::default_writer_properties()) {
    arrow::FieldVector fields;
    arrow::ArrayVector arrays;
    for (const Column& column : columns) {
      fields.push_back(arrow::field(column.name, column.array->type()));
      arrays.push_back(column.array);
    }
    const auto table = arrow::Table::Make(arrow::schema(fields), arrays);
    const auto file = arrow::io::FileOutputStream::Open(path_).ValueOrDie();
    // With the types of Arrow, dictionaries among them.
    const auto arrow_properties = parquet::ArrowWriterProperties::Builder().store_schema()->build();
    const arrow::Status written = parquet::arrow::WriteTable(
        *table, arrow::default_memory_pool(), file, rows_per_group, properties, arrow_properties);
    ASSERT_TRUE(written.ok()) << written.ToString();
    ASSERT_TRUE(file->Close().ok());
  }

  absl::StatusOr<std::vector<std::string>> Rows(const RowSourceOptions& options = {}) const {
    return RowsOf(path_, AllColumns(), options);
  }

  // The price of the only row.
  std::string PriceOf(const std::shared_ptr<arrow::Array>& array) {
    Write({{"text", Strings({"t"})}, {"price", array}});
    const absl::StatusOr<std::vector<std::string>> rows = Rows();
    EXPECT_OK(rows);
    return rows.ok() && rows->size() == 1 ? rows->front().substr(strlen("1: text=t")) : "";
  }

  TempDir dir_;
  std::string path_ = dir_.File("items.parquet");
};

TEST_F(ParquetSourceTest, ReadsRowsInOrderAndNullAsAbsent) {
  Write({{"id", Strings({"x", std::nullopt, "z"})},
         {"other", Values(arrow::Int32Builder(), std::vector<std::optional<int>>{1, 2, 3})},
         {"price", Values(arrow::DoubleBuilder(), std::vector<std::optional<double>>{2, 3.5, {}})},
         {"title", Strings({"a", "caf\xC3\xA9", ""})}});
  EXPECT_THAT(Rows(),
              IsOkAndHolds(ElementsAre("1: id=x title=a price=#2",
                                       "2: title=caf\xC3\xA9 price=#3.5", "3: id=z title=")));
}

TEST_F(ParquetSourceTest, ReadsFromManyRowGroupsInBatches) {
  std::vector<std::optional<std::string>> titles;
  std::vector<std::string> expected;
  for (int i = 1; i <= 5000; ++i) {
    titles.push_back(absl::StrCat("t", i));
    expected.push_back(absl::StrCat(i, ": title=t", i));
  }
  Write({{"title", Strings(titles)}}, /*rows_per_group=*/1500);
  EXPECT_THAT(Rows(), IsOkAndHolds(expected));
}

TEST_F(ParquetSourceTest, AFileWithoutRowsHasNone) {
  Write({{"title", Strings({})}});
  EXPECT_THAT(Rows(), IsOkAndHolds(IsEmpty()));
}

TEST_F(ParquetSourceTest, NumbersAreWrittenAsInJson) {
  EXPECT_EQ(PriceOf(One(arrow::Int8Builder(), int8_t{-7})), " price=#-7");
  EXPECT_EQ(PriceOf(One(arrow::UInt16Builder(), uint16_t{65535})), " price=#65535");
  EXPECT_EQ(PriceOf(One(arrow::Int64Builder(), std::numeric_limits<int64_t>::min())),
            " price=#-9223372036854775808");
  EXPECT_EQ(PriceOf(One(arrow::UInt64Builder(), std::numeric_limits<uint64_t>::max())),
            " price=#18446744073709551615");
  EXPECT_EQ(PriceOf(One(arrow::FloatBuilder(), 9.99F)), " price=#9.99");
  EXPECT_EQ(PriceOf(One(arrow::DoubleBuilder(), 0.1)), " price=#0.1");
  EXPECT_EQ(PriceOf(One(arrow::DoubleBuilder(), std::numeric_limits<double>::infinity())),
            " price=#inf");
  EXPECT_EQ(PriceOf(One(arrow::Decimal128Builder(arrow::decimal128(10, 2)),
                        arrow::Decimal128("1234.50"))),
            " price=#1234.50");
  EXPECT_EQ(
      PriceOf(One(arrow::Decimal256Builder(arrow::decimal256(50, 1)), arrow::Decimal256("0.5"))),
      " price=#0.5");
  EXPECT_EQ(PriceOf(One(arrow::BooleanBuilder(), true)), " price=!");
  EXPECT_EQ(PriceOf(One(arrow::StringBuilder(), std::string("12"))), " price=12");
  EXPECT_EQ(PriceOf(std::make_shared<arrow::NullArray>(1)), "");
}

TEST_F(ParquetSourceTest, ReadsStringsOfEveryKind) {
  const std::string text = "t \xE2\x82\xAC";
  EXPECT_EQ(PriceOf(One(arrow::LargeStringBuilder(), text)), " price=" + text);
  EXPECT_EQ(PriceOf(One(arrow::BinaryBuilder(), text)), " price=" + text);
  EXPECT_EQ(PriceOf(One(arrow::StringViewBuilder(), text)), " price=" + text);
  Write({{"text", Values(arrow::StringDictionaryBuilder(),
                         std::vector<std::optional<std::string>>{"b", {}, "a", "b"})}});
  EXPECT_THAT(Rows(), IsOkAndHolds(ElementsAre("1: text=b", "2: ", "3: text=a", "4: text=b")));
}

TEST_F(ParquetSourceTest, ListsAndStructsInColumnsThatAreReadAreRefusedByName) {
  auto strings = std::make_shared<arrow::StringBuilder>();
  arrow::ListBuilder lists(arrow::default_memory_pool(), strings);
  ASSERT_TRUE(lists.Append().ok() && strings->Append("a").ok());
  const std::shared_ptr<arrow::Array> list = lists.Finish().ValueOrDie();
  const std::shared_ptr<arrow::Array> structure =
      arrow::StructArray::Make({Strings({"a"})}, std::vector<std::string>{"x"}).ValueOrDie();
  for (const auto& array : {list, structure,
                            One(arrow::TimestampBuilder(arrow::timestamp(arrow::TimeUnit::MILLI),
                                                        arrow::default_memory_pool()),
                                int64_t{5})}) {
    Write({{"title", Strings({"t"})}, {"description", array}, {"price", Strings({"5"})}});
    EXPECT_THAT(Rows(), StatusIs(absl::StatusCode::kInvalidArgument,
                                 AllOf(HasSubstr(path_), HasSubstr("column \"description\""),
                                       HasSubstr("got " + array->type()->name()))));
    // Beside them the others are read.
    Write({{"more", array}, {"title", Strings({"t"})}, {"x", array}, {"price", Strings({"5"})}});
    EXPECT_THAT(Rows(), IsOkAndHolds(ElementsAre("1: title=t price=5")));
  }
}

TEST_F(ParquetSourceTest, AMissingColumnIsNamedWithThoseThatThereAre) {
  Write({{"name", Strings({"t"})}, {"cost", Strings({"5"})}});
  ItemReaderOptions options;
  options.columns = {{"title", "name"}};
  EXPECT_THAT(ItemReader::Open(path_, options),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr(path_), HasSubstr("no column \"price\""),
                             HasSubstr("the columns are \"name\", \"cost\""))));
}

TEST_F(ParquetSourceTest, ValuesThatAreReadMustBeUtf8AndRowsShort) {
  const std::string bad = "ab\xFF";
  Write({{"title", Values(arrow::BinaryBuilder(),
                          std::vector<std::optional<std::string>>{"good", bad, std::string(60, 'x'),
                                                                  std::string(60, 'y')})},
         {"text", Strings({"", "", "", std::string(41, 'z')})},
         {"more", Values(arrow::BinaryBuilder(),
                         std::vector<std::optional<std::string>>{bad, bad, bad, bad})}});
  EXPECT_THAT(Rows({.max_row_bytes = 100}),
              IsOkAndHolds(ElementsAre("1: title=good text=", "2: title: not UTF-8 at byte 3",
                                       "3: title=" + std::string(60, 'x') + " text=",
                                       "4: : row longer than 100 bytes")));
}

TEST_F(ParquetSourceTest, ItemsOfATableAreThoseOfJsonLines) {
  Write({{"sku", Values(arrow::Int64Builder(), std::vector<std::optional<int64_t>>{7, {}, 9, 10})},
         {"title", Strings({"a", "b", " ", "d"})},
         {"price",
          Values(arrow::FloatBuilder(), std::vector<std::optional<float>>{9.99F, {}, 1.F, -1.F})}});
  ItemReaderOptions options;
  options.columns = {{"id", "sku"}};
  ASSERT_OK_AND_ASSIGN(const auto reader, ItemReader::Open(path_, options));
  Item item;
  std::optional<Reject> reject;
  std::vector<std::string> rows;
  for (;;) {
    ASSERT_OK_AND_ASSIGN(const bool more, reader->NextRow(&item, &reject));
    if (!more) break;
    rows.push_back(absl::StrCat(
        reader->row(), " ", item.id, " ",
        reject.has_value() ? reject->reason : absl::StrCat(item.title, " ", *item.price)));
  }
  EXPECT_THAT(rows, ElementsAre("1 7 a 9.99", "2 2 missing", "3 9 empty text",
                                "4 10 not above zero: \"-1\""));
}

TEST_F(ParquetSourceTest, IsToldByItsFirstBytesWhereTheNameDoesNotSay) {
  Write({{"title", Strings({"t"})}});
  ASSERT_OK_AND_ASSIGN(const std::string bytes, ReadFile(path_));
  ASSERT_OK(WriteFile(dir_.File("a"), bytes));
  EXPECT_THAT(RowsOf(dir_.File("a"), AllColumns()), IsOkAndHolds(ElementsAre("1: title=t")));
  for (const char* name : {"a", "a.parquet.gz"}) {
    ASSERT_OK(WriteFile(dir_.File(name), GzipOf(bytes)));
    EXPECT_THAT(RowsOf(dir_.File(name), AllColumns()),
                StatusIs(absl::StatusCode::kDataLoss,
                         AllOf(HasSubstr(dir_.File(name)), HasSubstr("compressed as a whole"))));
  }
}

TEST_F(ParquetSourceTest, WhatIsNoParquetIsRefused) {
  for (const char* contents : {"", "PA", "title,price\n", "{}", "PAR1", "PAR1 and no footer"}) {
    ASSERT_OK(WriteFile(path_, contents));
    EXPECT_THAT(Rows(), StatusIs(absl::StatusCode::kDataLoss, HasSubstr(path_))) << contents;
  }
}

TEST_F(ParquetSourceTest, DamagedFilesAreErrorsOrOtherValuesButNeverACrash) {
  std::vector<std::optional<std::string>> titles;
  std::vector<std::optional<double>> prices;
  for (int i = 0; i < 200; ++i) {
    titles.push_back(i % 5 == 0 ? std::nullopt
                                : std::make_optional(absl::StrCat("title ", i % 17)));
    prices.push_back(i);
  }
  for (const auto compression :
       {parquet::Compression::UNCOMPRESSED, parquet::Compression::SNAPPY}) {
    Write({{"title", Strings(titles)},
           {"brand", Values(arrow::StringDictionaryBuilder(), titles)},
           {"price", Values(arrow::DoubleBuilder(), prices)}},
          50, parquet::WriterProperties::Builder().compression(compression)->build());
    ASSERT_OK_AND_ASSIGN(const std::string whole, ReadFile(path_));
    int errors = 0;
    for (size_t at = 4; at < whole.size(); at += 5) {
      for (const char flip : {'\x01', '\x7F'}) {
        std::string damaged = whole;
        damaged[at] = static_cast<char>(damaged[at] ^ flip);
        WriteScratchFile(path_, damaged);
        const absl::StatusOr<std::vector<std::string>> rows = Rows();
        if (rows.ok()) continue;
        ++errors;
        EXPECT_THAT(std::string(rows.status().message()), HasSubstr(path_)) << at;
      }
    }
    EXPECT_GT(errors, 100);
    for (size_t size = 0; size < whole.size(); size += 7) {
      WriteScratchFile(path_, whole.substr(0, size));
      EXPECT_THAT(Rows(), StatusIs(absl::StatusCode::kDataLoss, HasSubstr(path_))) << size;
    }
  }
}

// libparquet exports an OpenSSL of its own (cmake/arrow.cmake).
TEST(ArrowLibraryTest, OpenSslIsTheSystems) {
  Dl_info info;
  ASSERT_NE(dladdr(dlsym(RTLD_DEFAULT, "EVP_sha256"), &info), 0);
  EXPECT_THAT(info.dli_fname, HasSubstr("libcrypto"));
  ASSERT_NE(dladdr(reinterpret_cast<void*>(&EVP_sha256), &info), 0);
  EXPECT_THAT(info.dli_fname, HasSubstr("libcrypto"));
}

}  // namespace
}  // namespace pricer
