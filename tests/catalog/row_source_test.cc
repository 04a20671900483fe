#include "catalog/row_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "base/file.h"
#include "tests/catalog/gzip.h"
#include "tests/catalog/rows.h"
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
using ::pricer::testing::ZstdOf;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr char kJson[] = "{\"title\": \"a\", \"price\": 2}\n";

TEST(RowSourceTest, ReadsJsonLinesByNameAndCompressionByContents) {
  const TempDir dir;
  const auto expect = [&dir](const std::string& name, const std::string& bytes) {
    ASSERT_OK(WriteFile(dir.File(name), bytes));
    EXPECT_THAT(RowsOf(dir.File(name), AllColumns()),
                IsOkAndHolds(ElementsAre("1: title=a price=#2")))
        << name;
  };
  for (const char* name : {"a.jsonl", "a.ndjson", "a.JSON", "a.x"}) {
    expect(name, kJson);
    expect(name, GzipOf(kJson));
    expect(name, ZstdOf(kJson));
  }
  expect("a.jsonl.gz", GzipOf(kJson));
  expect("a.json.ZST", ZstdOf(kJson));
}

TEST(RowSourceTest, AFileOfAnotherNameIsJsonLinesByItsFirstCharacter) {
  const TempDir dir;
  ASSERT_OK(WriteFile(dir.File("a"), std::string("\xEF\xBB\xBF \n") + kJson));
  EXPECT_THAT(RowsOf(dir.File("a"), AllColumns()),
              IsOkAndHolds(ElementsAre("1: : blank line", "2: title=a price=#2")));
  ASSERT_OK(WriteFile(dir.File("a"), "[1]\n"));
  EXPECT_THAT(RowsOf(dir.File("a"), AllColumns()),
              IsOkAndHolds(ElementsAre("1: : not a JSON object")));
  ASSERT_OK(WriteFile(dir.File("a"), ""));
  EXPECT_THAT(RowsOf(dir.File("a"), AllColumns()), IsOkAndHolds(IsEmpty()));
}

TEST(RowSourceTest, MissingFilesAreNotFoundWhateverTheFormat) {
  for (const char* name : {"/no/such.jsonl", "/no/such.csv", "/no/such.parquet"}) {
    EXPECT_THAT(RowsOf(name, AllColumns()), StatusIs(absl::StatusCode::kNotFound));
  }
}

}  // namespace
}  // namespace pricer
