#include "catalog/rejects_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "base/file.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace pricer {
namespace {

using ::pricer::testing::IsOkAndHolds;
using ::pricer::testing::StatusIs;
using ::pricer::testing::TempDir;

TEST(RejectsFileTest, WritesOneLinePerReject) {
  const TempDir dir;
  ASSERT_OK_AND_ASSIGN(RejectsFile rejects, RejectsFile::Create(dir.File("r"), "in\"put.jsonl"));
  ASSERT_OK(rejects.Add(3, {"price", "not a number: \"x\""}));
  ASSERT_OK(rejects.Add(5, {"", "empty text"}));
  ASSERT_OK(rejects.Flush());
  EXPECT_THAT(
      ReadFile(dir.File("r")),
      IsOkAndHolds(
          R"({"file": "in\"put.jsonl", "row": 3, "field": "price", "reason": "not a number: \"x\""})"
          "\n"
          R"({"file": "in\"put.jsonl", "row": 5, "field": "", "reason": "empty text"})"
          "\n"));
}

TEST(RejectsFileTest, TheFileOfAnEarlierRunGoesAndNoneComesWithoutRejects) {
  const TempDir dir;
  ASSERT_OK(WriteFile(dir.File("r"), "old"));
  ASSERT_OK_AND_ASSIGN(RejectsFile rejects, RejectsFile::Create(dir.File("r"), "input"));
  ASSERT_OK(rejects.Flush());
  EXPECT_FALSE(std::filesystem::exists(dir.File("r")));
}

TEST(RejectsFileTest, WithoutAPathNothingIsWritten) {
  ASSERT_OK_AND_ASSIGN(RejectsFile rejects, RejectsFile::Create("", "input"));
  EXPECT_OK(rejects.Add(1, {"", "x"}));
  EXPECT_OK(rejects.Flush());
}

TEST(RejectsFileTest, RefusesToReplaceTheInput) {
  const TempDir dir;
  ASSERT_OK(WriteFile(dir.File("a"), "data"));
  std::filesystem::create_symlink(dir.File("a"), dir.File("link"));
  EXPECT_THAT(RejectsFile::Create(dir.File("link"), dir.File("a")),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(ReadFile(dir.File("a")), IsOkAndHolds("data"));
}

TEST(RejectsFileTest, AnUnwritablePathIsAnErrorAtTheFirstReject) {
  ASSERT_OK_AND_ASSIGN(RejectsFile rejects, RejectsFile::Create("/no/such/dir/r", "input"));
  EXPECT_THAT(rejects.Add(1, {"", "x"}), StatusIs(absl::StatusCode::kNotFound));
}

}  // namespace
}  // namespace pricer
