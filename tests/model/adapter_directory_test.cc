#include "model/adapter_directory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <set>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace pricer {
namespace {

namespace fs = std::filesystem;

using ::pricer::testing::IsOkAndHolds;
using ::pricer::testing::StatusIs;
using ::pricer::testing::TempDir;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr auto kDataLoss = absl::StatusCode::kDataLoss;

// Fills a version with one file and asks for a marker.
absl::StatusOr<std::string> WriteOne(const std::string& directory) {
  const absl::Status status = WriteFile(directory + "/weights", "abc");
  if (!status.ok()) return status;
  return std::string("marker");
}

std::vector<std::string> Names(const std::string& directory) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(directory)) {
    names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

TEST(PlaceVersionTest, TakesTheNumberUnlessItIsReady) {
  const TempDir dir;
  ASSERT_OK(PlaceVersion(dir.path(), "shop", 7, WriteOne).status());
  EXPECT_THAT(ReadFile(dir.File("shop/7/_READY")), IsOkAndHolds("marker"));
  EXPECT_THAT(PlaceVersion(dir.path(), "shop", 7, WriteOne).status(),
              StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr("shop/7")));
  fs::remove(dir.File("shop/7/_READY"));
  ASSERT_OK(WriteFile(dir.File("shop/7/left"), ""));
  ASSERT_OK(PlaceVersion(dir.path(), "shop", 7, WriteOne).status());
  EXPECT_THAT(Names(dir.File("shop/7")), ElementsAre("_READY", "weights"));
  EXPECT_THAT(Names(dir.File("shop")), ElementsAre("7"));
}

class PublishVersionTest : public ::testing::Test {
 protected:
  absl::StatusOr<PublishedVersion> Publish() { return PublishVersion(root_, "shop", WriteOne); }

  const TempDir dir_;
  const std::string root_ = dir_.File("adapters");
  const std::string shop_ = root_ + "/shop";
};

TEST_F(PublishVersionTest, MakesTheFolderAndCountsFromOne) {
  ASSERT_OK_AND_ASSIGN(const PublishedVersion first, Publish());
  EXPECT_EQ(first.version, 1);
  EXPECT_EQ(first.directory, shop_ + "/1");
  EXPECT_THAT(Names(first.directory), ElementsAre("_READY", "weights"));
  EXPECT_THAT(ReadFile(first.directory + "/weights"), IsOkAndHolds(std::string("abc")));
  EXPECT_THAT(ReadFile(first.directory + "/_READY"), IsOkAndHolds(std::string("marker")));
  ASSERT_OK_AND_ASSIGN(const PublishedVersion second, Publish());
  EXPECT_EQ(second.version, 2);
  EXPECT_THAT(Names(shop_), ElementsAre("1", "2"));
}

TEST_F(PublishVersionTest, IsReadableByOtherUsers) {
  ASSERT_OK_AND_ASSIGN(const PublishedVersion version, Publish());
  EXPECT_EQ(fs::status(version.directory).permissions() & fs::perms::others_read,
            fs::perms::others_read);
}

TEST_F(PublishVersionTest, TakesTheNumberAfterTheLargest) {
  fs::create_directories(shop_ + "/3");
  fs::create_directories(shop_ + "/12");
  fs::create_directories(shop_ + "/007");
  fs::create_directories(shop_ + "/.tmp-1-2-left-over");
  ASSERT_OK(WriteFile(shop_ + "/labels.json", "{}"));
  ASSERT_OK_AND_ASSIGN(const PublishedVersion version, Publish());
  EXPECT_EQ(version.version, 13);
  EXPECT_THAT(Names(shop_),
              ElementsAre(".tmp-1-2-left-over", "007", "12", "13", "3", "labels.json"));
}

TEST_F(PublishVersionTest, DoesNotTakeTheNumberOfAFile) {
  fs::create_directories(shop_);
  ASSERT_OK(WriteFile(shop_ + "/1", "in the way"));
  ASSERT_OK_AND_ASSIGN(const PublishedVersion version, Publish());
  EXPECT_EQ(version.version, 2);
}

TEST_F(PublishVersionTest, RefusesBadNames) {
  for (const char* name : {"", "base", "../x", "A", "a/b"}) {
    EXPECT_THAT(PublishVersion(root_, name, WriteOne),
                StatusIs(absl::StatusCode::kInvalidArgument));
  }
  EXPECT_FALSE(fs::exists(root_));
}

TEST_F(PublishVersionTest, LeavesNothingWhereWritingFails) {
  const auto fail = [](const std::string& directory) -> absl::StatusOr<std::string> {
    EXPECT_OK(WriteFile(directory + "/half", "x"));
    return absl::ResourceExhaustedError("disk full");
  };
  EXPECT_THAT(PublishVersion(root_, "shop", fail),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("disk full")));
  EXPECT_THAT(Names(shop_), IsEmpty());
  ASSERT_OK_AND_ASSIGN(const PublishedVersion version, Publish());
  EXPECT_EQ(version.version, 1);
}

TEST_F(PublishVersionTest, LeavesNothingWhereTheMarkerCannotBeWritten) {
  // A directory in the place of the marker, which is written last.
  const auto block = [](const std::string& directory) -> absl::StatusOr<std::string> {
    fs::create_directories(directory + "/_READY/x");
    return std::string("marker");
  };
  EXPECT_THAT(PublishVersion(root_, "shop", block),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("_READY: expected a file")));
  EXPECT_THAT(Names(shop_), IsEmpty());
}

TEST_F(PublishVersionTest, GivesUpItsClaimWhereTheRenameFails) {
  const auto vanish = [](const std::string& directory) -> absl::StatusOr<std::string> {
    // The temporary directory is replaced by a file, which cannot be renamed over a directory.
    fs::remove_all(directory);
    fs::create_directories(directory + "-other");
    fs::create_directory_symlink(directory + "-other", directory);
    return std::string("marker");
  };
  EXPECT_THAT(PublishVersion(root_, "shop", vanish),
              StatusIs(absl::StatusCode::kInternal, HasSubstr("shop/1")));
  for (const std::string& name : Names(shop_)) EXPECT_TRUE(absl::StartsWith(name, ".tmp-")) << name;
}

TEST_F(PublishVersionTest, SaysWhatIsWrongWithTheRoot) {
  ASSERT_OK(WriteFile(root_, "a file"));
  const absl::StatusOr<PublishedVersion> on_file = Publish();
  EXPECT_FALSE(on_file.ok());
  EXPECT_THAT(std::string(on_file.status().message()), HasSubstr(root_));
}

TEST_F(PublishVersionTest, SaysThatTheRootIsNotWritable) {
  if (geteuid() == 0) {
    // Permissions do not bind root; a file system that nobody can write to does.
    const absl::StatusOr<PublishedVersion> on_proc =
        PublishVersion("/proc/pricer", "shop", WriteOne);
    EXPECT_FALSE(on_proc.ok());
    EXPECT_THAT(std::string(on_proc.status().message()), HasSubstr("/proc/pricer"));
    return;
  }
  fs::create_directories(root_);
  fs::permissions(root_, fs::perms::owner_read | fs::perms::owner_exec);
  EXPECT_THAT(Publish(), StatusIs(absl::StatusCode::kPermissionDenied, HasSubstr(root_)));
  fs::permissions(root_, fs::perms::owner_all);
}

TEST_F(PublishVersionTest, GivesConcurrentPublishersDifferentWholeVersions) {
  constexpr int kThreads = 8;
  constexpr int kEach = 10;
  std::atomic<bool> stop = false;
  std::atomic<int> broken = 0;
  fs::create_directories(shop_);
  // What is seen under a version's name with a marker is whole at every moment.
  std::thread reader([&] {
    while (!stop) {
      for (int version = 1; version <= kThreads * kEach; ++version) {
        const std::string path = absl::StrCat(shop_, "/", version);
        if (!fs::exists(path + "/_READY")) continue;
        const absl::StatusOr<std::string> text = ReadFile(path + "/weights");
        if (!text.ok() || *text != "abc") ++broken;
      }
    }
  });
  std::vector<int64_t> versions(kThreads * kEach);
  std::vector<std::thread> publishers;
  for (int t = 0; t < kThreads; ++t) {
    publishers.emplace_back([&, t] {
      for (int i = 0; i < kEach; ++i) {
        const absl::StatusOr<PublishedVersion> version = Publish();
        if (version.ok()) versions[t * kEach + i] = version->version;
      }
    });
  }
  for (std::thread& publisher : publishers) publisher.join();
  stop = true;
  reader.join();
  EXPECT_EQ(broken, 0);
  const std::set<int64_t> distinct(versions.begin(), versions.end());
  EXPECT_EQ(distinct.size(), kThreads * kEach);
  EXPECT_EQ(distinct.count(0), 0u) << "a publisher failed";
  for (const int64_t version : versions) {
    EXPECT_THAT(Names(absl::StrCat(shop_, "/", version)), ElementsAre("_READY", "weights"));
  }
  EXPECT_EQ(Names(shop_).size(), kThreads * kEach) << "temporary directories are left";
}

class ReadAdapterFileTest : public ::testing::Test {
 protected:
  ReadAdapterFileTest() {
    fs::create_directories(folder_);
    EXPECT_OK(WriteFile(dir_.File("secret"), "outside"));
    EXPECT_OK(WriteFile(folder_ + "/file", "inside"));
  }

  const TempDir dir_;
  const std::string folder_ = dir_.File("folder");
};

TEST_F(ReadAdapterFileTest, ReadsFilesAndLinksInsideTheFolder) {
  EXPECT_THAT(ReadAdapterFile(folder_, "file", 100), IsOkAndHolds(std::string("inside")));
  fs::create_symlink("file", folder_ + "/link");
  EXPECT_THAT(ReadAdapterFile(folder_, "link", 100), IsOkAndHolds(std::string("inside")));
}

TEST_F(ReadAdapterFileTest, FollowsALinkToTheFolderItself) {
  fs::create_directory_symlink(folder_, dir_.File("alias"));
  EXPECT_THAT(ReadAdapterFile(dir_.File("alias"), "file", 100),
              IsOkAndHolds(std::string("inside")));
}

TEST_F(ReadAdapterFileTest, RefusesLinksThatLeaveTheFolder) {
  fs::create_symlink("../secret", folder_ + "/relative");
  fs::create_symlink(dir_.File("secret"), folder_ + "/absolute");
  fs::create_directories(dir_.File("folder-beside"));
  ASSERT_OK(WriteFile(dir_.File("folder-beside/x"), "x"));
  fs::create_symlink(dir_.File("folder-beside/x"), folder_ + "/sibling");
  for (const char* name : {"relative", "absolute", "sibling"}) {
    EXPECT_THAT(ReadAdapterFile(folder_, name, 100),
                StatusIs(kDataLoss, AllOf(HasSubstr(absl::StrCat(folder_, "/", name)),
                                          HasSubstr("leads out of"))));
  }
  EXPECT_THAT(ReadAdapterFile(folder_, "../secret", 100), StatusIs(kDataLoss));
}

TEST_F(ReadAdapterFileTest, SaysWhatIsWrongWithTheFile) {
  EXPECT_THAT(ReadAdapterFile(folder_, "none", 100),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr(folder_ + "/none")));
  fs::create_symlink("nowhere", folder_ + "/dangling");
  EXPECT_THAT(ReadAdapterFile(folder_, "dangling", 100),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("dangling")));
  EXPECT_THAT(ReadAdapterFile(folder_, "file", 5),
              StatusIs(kDataLoss, AllOf(HasSubstr("at most 5 bytes, got 6"))));
  fs::create_directories(folder_ + "/directory");
  EXPECT_THAT(ReadAdapterFile(folder_, "directory", 100),
              StatusIs(kDataLoss, HasSubstr("regular file")));
  ASSERT_EQ(mkfifo((folder_ + "/pipe").c_str(), 0600), 0);
  EXPECT_THAT(ReadAdapterFile(folder_, "pipe", 100),
              StatusIs(kDataLoss, HasSubstr("regular file")));
}

TEST(CheckInsideFolderTest, AcceptsTheFolderItselfAndWhatIsBelow) {
  const TempDir dir;
  fs::create_directories(dir.File("a/b"));
  EXPECT_OK(CheckInsideFolder(dir.path(), dir.path()));
  EXPECT_OK(CheckInsideFolder(dir.File("a/b"), dir.File("a")));
  EXPECT_OK(CheckInsideFolder(dir.File("a/b/"), dir.File("a/")));
  EXPECT_THAT(CheckInsideFolder(dir.File("a"), dir.File("a/b")), StatusIs(kDataLoss));
  EXPECT_THAT(CheckInsideFolder(dir.File("a/x"), dir.path()),
              StatusIs(absl::StatusCode::kNotFound));
}

}  // namespace
}  // namespace pricer
