#include "trainer/option_checks.h"

#include <gmock/gmock.h>

#include <cmath>
#include <filesystem>
#include <limits>

#include "base/file.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace pricer {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::StatusIs;
using testing::TempDir;

TEST(OptionChecksTest, BoundsAreInclusiveAndNamed) {
  EXPECT_OK(CheckBounds("--bins", 2, 2, 8));
  EXPECT_OK(CheckBounds("--bins", 8, 2, 8));
  EXPECT_THAT(CheckBounds("--bins", 9, 2, 8),
              StatusIs(absl::StatusCode::kInvalidArgument, "--bins is 9; expected 2 to 8"));
  EXPECT_THAT(CheckBounds("--lr", std::nan(""), 0.0, 1.0),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(OptionChecksTest, AnInputFileMustExistAndBeNoDirectory) {
  TempDir dir;
  ASSERT_OK(WriteFile(dir.File("data"), "x"));
  EXPECT_OK(CheckFile("--data", dir.File("data")));
  EXPECT_THAT(CheckFile("--data", dir.File("none")),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("--data"), HasSubstr("none does not exist"))));
  EXPECT_THAT(CheckFile("--data", dir.path()),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("is a directory")));
}

TEST(OptionChecksTest, AFileThatIsReadTwiceMustBeRegular) {
  TempDir dir;
  ASSERT_OK(WriteFile(dir.File("data"), "x"));
  EXPECT_OK(CheckRegularFile("--data", dir.File("data")));
  EXPECT_THAT(CheckRegularFile("--data", "/dev/null"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("--data"), HasSubstr("not a regular file"))));
  EXPECT_THAT(CheckRegularFile("--data", dir.File("none")),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("does not exist")));
}

TEST(OptionChecksTest, AnOutputDirectoryIsMadeOrRefusedByName) {
  TempDir dir;
  EXPECT_OK(MakeOutputDirectory("--output", dir.File("a/b")));
  EXPECT_OK(MakeOutputDirectory("--output", dir.File("a/b")));
  ASSERT_OK(WriteFile(dir.File("file"), "x"));
  EXPECT_THAT(MakeOutputDirectory("--output", dir.File("file/b")),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("--output: "), HasSubstr(dir.File("file/b")))));
  EXPECT_THAT(CheckNotEmpty("--runs", ""),
              StatusIs(absl::StatusCode::kInvalidArgument, "--runs is empty"));
}

TEST(OptionChecksTest, AnInputDirectoryMustBeOne) {
  TempDir dir;
  ASSERT_OK(WriteFile(dir.File("data"), "x"));
  EXPECT_OK(CheckDirectory("--base", dir.path()));
  EXPECT_THAT(CheckDirectory("--base", dir.File("data")),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("--base")));
}

TEST(OptionChecksTest, AnOutputFileNeedsADirectoryOrIsAStream) {
  TempDir dir;
  EXPECT_OK(CheckOutputFile("--json", dir.File("out.json")));
  ASSERT_OK(WriteFile(dir.File("out.json"), "old"));
  EXPECT_OK(CheckOutputFile("--json", dir.File("out.json")));
  EXPECT_THAT(CheckOutputFile("--json", dir.path()),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("it is a directory")));
  EXPECT_OK(CheckOutputFile("--json", "/dev/null"));
  std::filesystem::create_symlink("none/out.json", dir.File("link"));
  EXPECT_THAT(CheckOutputFile("--json", dir.File("link")),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("none is not a directory")));
  EXPECT_THAT(CheckOutputFile("--json", dir.File("none/out.json")),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("none is not a directory")));
  EXPECT_THAT(CheckOutputFile("--json", ""), StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(OptionChecksTest, AnOutputMustNotReplaceAnotherFile) {
  TempDir dir;
  ASSERT_OK(WriteFile(dir.File("data"), "x"));
  EXPECT_OK(CheckOtherFile("--output", dir.File("out"), "--input", dir.File("data")));
  EXPECT_OK(CheckOtherFile("--output", "", "--input", ""));
  EXPECT_THAT(CheckOtherFile("--output", dir.File("./data"), "--input", dir.File("data")),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("--output: "), HasSubstr("is also --input"))));
  EXPECT_THAT(CheckOtherFile("--json", dir.File("new"), "--predictions", dir.File("./new")),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("is also --predictions")));
}

}  // namespace
}  // namespace pricer
