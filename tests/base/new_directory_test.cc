#include "base/new_directory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <set>
#include <utility>

#include "base/file.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace pricer {
namespace {

namespace fs = std::filesystem;

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::IsOkAndHolds;
using testing::StatusIs;
using testing::TempDir;

std::set<std::string> NamesIn(const std::string& directory) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(directory)) {
    names.insert(entry.path().filename().string());
  }
  return names;
}

TEST(NewDirectoryTest, AppearsWithItsFilesOnCommit) {
  const TempDir dir;
  ASSERT_OK_AND_ASSIGN(NewDirectory made, NewDirectory::Create(dir.File("a/b/")));
  ASSERT_OK(WriteFile(made.File("file"), "text"));
  EXPECT_FALSE(fs::exists(dir.File("a/b")));
  ASSERT_OK(made.Commit());
  EXPECT_THAT(NamesIn(dir.File("a")), ElementsAre("b"));
  EXPECT_THAT(ReadFile(dir.File("a/b/file")), IsOkAndHolds("text"));
}

TEST(NewDirectoryTest, LeavesNothingBehindWithoutACommit) {
  const TempDir dir;
  {
    ASSERT_OK_AND_ASSIGN(NewDirectory made, NewDirectory::Create(dir.File("out")));
    const NewDirectory moved = std::move(made);
    ASSERT_OK(WriteFile(moved.File("file"), "text"));
  }
  EXPECT_THAT(NamesIn(dir.path()), IsEmpty());
}

TEST(NewDirectoryTest, TakesThePlaceOfAnEmptyDirectoryAlone) {
  const TempDir dir;
  ASSERT_OK(MakeDirectories(dir.File("empty")));
  ASSERT_OK_AND_ASSIGN(NewDirectory made, NewDirectory::Create(dir.File("empty")));
  ASSERT_OK(WriteFile(made.File("file"), "new"));
  ASSERT_OK(made.Commit());
  const auto refused = StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr(dir.File("empty")));
  EXPECT_THAT(NewDirectory::Create(dir.File("empty")), refused);
  EXPECT_THAT(NewDirectory::Create(dir.File("empty/file")), refused);
  EXPECT_THAT(ReadFile(dir.File("empty/file")), IsOkAndHolds("new"));
}

TEST(NewDirectoryTest, DoesNotReplaceWhatAppearedMeanwhile) {
  const TempDir dir;
  {
    ASSERT_OK_AND_ASSIGN(NewDirectory made, NewDirectory::Create(dir.File("out")));
    ASSERT_OK(MakeDirectories(dir.File("out")));
    ASSERT_OK(WriteFile(dir.File("out/theirs"), "text"));
    EXPECT_FALSE(made.Commit().ok());
  }
  EXPECT_THAT(NamesIn(dir.path()), ElementsAre("out"));
  EXPECT_THAT(NamesIn(dir.File("out")), ElementsAre("theirs"));
}

TEST(NewDirectoryTest, RefusesWhatNamesNoDirectoryToMake) {
  for (const char* name : {"", ".", "..", "a/.."}) {
    EXPECT_THAT(NewDirectory::Create(name), StatusIs(absl::StatusCode::kInvalidArgument)) << name;
  }
}

}  // namespace
}  // namespace pricer
