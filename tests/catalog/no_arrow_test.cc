#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "base/file.h"
#include "tests/catalog/rows.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace pricer {
namespace {

using ::pricer::testing::AllColumns;
using ::pricer::testing::RowsOf;
using ::pricer::testing::StatusIs;
using ::pricer::testing::TempDir;
using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(NoArrowTest, TablesAreRefusedWithTheNameOfTheOption) {
  const TempDir dir;
  for (const char* name : {"a.csv", "a.tsv", "a.parquet", "a"}) {
    ASSERT_OK(WriteFile(dir.File(name), "title,price\na,2\n"));
    EXPECT_THAT(RowsOf(dir.File(name), AllColumns()),
                StatusIs(absl::StatusCode::kUnimplemented,
                         AllOf(HasSubstr(dir.File(name)), HasSubstr("PRICER_ARROW"))))
        << name;
  }
}

}  // namespace
}  // namespace pricer
