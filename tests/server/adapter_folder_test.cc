#include "server/adapter_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <chrono>
#include <filesystem>

#include "tests/server/adapter_files.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace pricer {
namespace {

namespace fs = std::filesystem;

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::MakeVersion;
using ::testing::Pair;
using testing::StatusIs;
using testing::TempDir;
using testing::WriteText;

TEST(AdapterFolderTest, FindsVersionsThatCarryTheMarker) {
  TempDir root;
  MakeVersion(root.path(), "toys", "2");
  MakeVersion(root.path(), "toys", "10");
  MakeVersion(root.path(), "wine", "1");
  MakeVersion(root.path(), "wine", "2", /*ready=*/false);
  ASSERT_OK_AND_ASSIGN(const FolderScan scan, ScanAdapterFolder(root.path()));
  EXPECT_THAT(scan.versions,
              ElementsAre(AdapterKey{"toys", 2}, AdapterKey{"toys", 10}, AdapterKey{"wine", 1}));
  EXPECT_THAT(scan.unreadable_names, IsEmpty());
  EXPECT_THAT(scan.foreign_entries, IsEmpty());
}

TEST(AdapterFolderTest, IgnoresWhatIsNoVersionOfAnAdapter) {
  TempDir root;
  MakeVersion(root.path(), "toys", "01");
  MakeVersion(root.path(), "toys", "0");
  MakeVersion(root.path(), "toys", "-1");
  MakeVersion(root.path(), "toys", "new");
  MakeVersion(root.path(), "toys", "99999999999999999999");
  MakeVersion(root.path(), "toys", ".tmp-3");
  MakeVersion(root.path(), ".hidden", "1");
  MakeVersion(root.path(), "Upper", "1");
  MakeVersion(root.path(), "base", "1");
  WriteText(fs::path(root.path()) / "toys" / "labels.json", "{}");
  WriteText(fs::path(root.path()) / "notes", "a file where a directory could be");
  ASSERT_OK_AND_ASSIGN(const FolderScan scan, ScanAdapterFolder(root.path()));
  EXPECT_THAT(scan.versions, IsEmpty());
  EXPECT_THAT(scan.unreadable_names, IsEmpty());
  EXPECT_THAT(scan.foreign_entries, ElementsAre("Upper", "base"));
}

TEST(AdapterFolderTest, AMissingRootIsUnavailable) {
  TempDir parent;
  EXPECT_THAT(ScanAdapterFolder(parent.File("gone")),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("gone")));
  WriteText(parent.File("file"), "");
  EXPECT_THAT(ScanAdapterFolder(parent.File("file")),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("not a directory")));
}

TEST(AdapterFolderTest, TellsDirectoriesApartThatHadOneName) {
  TempDir parent;
  const std::string root = parent.File("adapters");
  fs::create_directory(root);
  ASSERT_OK_AND_ASSIGN(const FolderScan before, ScanAdapterFolder(root));
  fs::rename(root, parent.File("old"));
  fs::create_directory(root);
  ASSERT_OK_AND_ASSIGN(const FolderScan after, ScanAdapterFolder(root));
  EXPECT_FALSE(before.root == after.root);
}

// A link to itself stands for any reason why a directory that is there cannot be read.
TEST(AdapterFolderTest, NamesThatCannotBeReadMayHoldAnyVersion) {
  TempDir root;
  fs::create_symlink("broken", fs::path(root.path()) / "broken");
  MakeVersion(root.path(), "wine", "1");
  const fs::path half = MakeVersion(root.path(), "half", "1", /*ready=*/false);
  fs::create_symlink("_READY", half / "_READY");
  ASSERT_OK_AND_ASSIGN(const FolderScan scan, ScanAdapterFolder(root.path()));
  EXPECT_THAT(
      scan.unreadable_names,
      ElementsAre(Pair("broken", HasSubstr("symbolic links")),
                  Pair("half", AllOf(HasSubstr("version 1"), HasSubstr("symbolic links")))));
  EXPECT_TRUE(scan.MayHold({"broken", 7}));
  EXPECT_TRUE(scan.MayHold({"wine", 1}));
  EXPECT_FALSE(scan.MayHold({"wine", 2}));
}

TEST(AdapterFolderTest, TheSignatureChangesWithNamesSizesTimesAndTheMarker) {
  TempDir root;
  const fs::path version = MakeVersion(root.path(), "toys", "1");
  const fs::path config = version / "adapter_config.json";
  const std::string first = VersionSignature(version);
  EXPECT_EQ(VersionSignature(version), first);

  WriteText(version / "extra", "x");
  const std::string with_file = VersionSignature(version);
  EXPECT_NE(with_file, first);

  const fs::file_time_type time = fs::last_write_time(config);
  fs::last_write_time(config, time + std::chrono::seconds(5));
  const std::string touched = VersionSignature(version);
  EXPECT_NE(touched, with_file);

  const fs::path marker = version / "_READY";
  WriteText(marker, "aa");
  const fs::file_time_type marker_time = fs::last_write_time(marker);
  const std::string marked = VersionSignature(version);
  WriteText(marker, "bb");
  fs::last_write_time(marker, marker_time);
  EXPECT_NE(VersionSignature(version), marked);
}

// Opening a pipe that nobody writes to would wait for ever.
TEST(AdapterFolderTest, TheSignatureOfAVersionWhoseMarkerIsAPipeIsTakenAtOnce) {
  TempDir root;
  const fs::path version = MakeVersion(root.path(), "toys", "1", /*ready=*/false);
  ASSERT_EQ(mkfifo((version / "_READY").c_str(), 0600), 0);
  const std::string pipe = VersionSignature(version);
  EXPECT_EQ(VersionSignature(version), pipe);
  fs::remove(version / "_READY");
  WriteText(version / "_READY", "aa");
  EXPECT_NE(VersionSignature(version), pipe);
}

}  // namespace
}  // namespace pricer
