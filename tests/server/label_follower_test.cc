#include "server/label_follower.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <optional>

#include "tests/server/adapter_files.h"
#include "tests/server/fakes.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace pricer {
namespace {

namespace fs = std::filesystem;

using testing::FakeClock;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::MakeLoadedAdapter;
using testing::MakeVersion;
using testing::RecordingMetrics;
using testing::StatusIs;
using testing::TempDir;
using testing::WriteText;

constexpr char kStableIsOne[] = R"({"format_version": "1.0", "labels": {"stable": 1}})";
constexpr char kStableIsTwo[] = R"({"format_version": "1.0", "labels": {"stable": 2}})";

class LabelFollowerTest : public ::testing::Test {
 protected:
  LabelFollowerTest() {
    for (int64_t version : {1, 2, 3}) {
      MakeVersion(root_.path(), "toys", std::to_string(version));
      registry_.Discover({"toys", version});
      registry_.Publish(MakeLoadedAdapter("toys", version), absl::ZeroDuration());
    }
  }
  // As an editor does that does not rename.
  void Write(const std::string& text) { WriteText(File(), text); }
  fs::path File() const { return fs::path(root_.path()) / "toys" / "labels.json"; }
  void Poll() {
    ASSERT_OK_AND_ASSIGN(const FolderScan scan, ScanAdapterFolder(root_.path()));
    follower_.Poll(scan);
  }
  int64_t Stable() { return (*registry_.Find("toys", std::nullopt))->key.version; }
  std::string Error() { return registry_.Labels("toys")->error; }

  TempDir root_;
  FakeClock clock_;
  RecordingMetrics metrics_;
  AdapterRegistry registry_{"", &metrics_, &clock_};
  LabelFollower follower_{root_.path(), &registry_};
};

TEST_F(LabelFollowerTest, FollowsTheFile) {
  Poll();
  EXPECT_EQ(Stable(), 3);
  Write(kStableIsOne);
  Poll();
  EXPECT_EQ(Stable(), 1);
  Write(R"({"format_version": "1.0", "labels": {"stable": 2, "shadow": 3}})");
  Poll();
  EXPECT_EQ(Stable(), 2);
}

TEST_F(LabelFollowerTest, RefreshReadsAtOnce) {
  Write(kStableIsOne);
  follower_.Refresh("toys");
  EXPECT_EQ(Stable(), 1);
}

TEST_F(LabelFollowerTest, AFileThatCannotBeReadChangesNothingAndIsShown) {
  Write(kStableIsOne);
  Poll();
  Write(R"({"format_version": "1.0", "labels": {"stable": )");
  Poll();
  EXPECT_EQ(Stable(), 1);
  EXPECT_THAT(Error(), HasSubstr("labels.json"));
  Write(kStableIsTwo);
  Poll();
  EXPECT_EQ(Stable(), 2);
  EXPECT_THAT(Error(), IsEmpty());
}

TEST_F(LabelFollowerTest, WhatWasNeverReadIsNotGuessed) {
  Write("garbage");
  Poll();
  EXPECT_THAT(registry_.Find("toys", std::nullopt),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("labels.json")));
  EXPECT_OK(registry_.Find("toys", 3));
  Write(kStableIsTwo);
  Poll();
  EXPECT_EQ(Stable(), 2);
}

TEST_F(LabelFollowerTest, TwoLooksInARowWithoutTheFileEndTheLabels) {
  Write(kStableIsOne);
  Poll();
  fs::remove(File());
  Poll();
  EXPECT_EQ(Stable(), 1);
  Write(kStableIsTwo);
  Poll();
  EXPECT_EQ(Stable(), 2);
  fs::remove(File());
  Poll();
  EXPECT_EQ(Stable(), 2);
  Poll();
  EXPECT_EQ(Stable(), 3);
}

TEST_F(LabelFollowerTest, AnAdapterThatIsNotReadableKeepsItsLabels) {
  Write(kStableIsOne);
  Poll();
  fs::rename(File(), File().string() + ".aside");
  FolderScan scan = *ScanAdapterFolder(root_.path());
  scan.versions.clear();
  scan.unreadable_names["toys"] = "Input/output error";
  for (int i = 0; i < 5; ++i) follower_.Poll(scan);
  EXPECT_EQ(Stable(), 1);
}

}  // namespace
}  // namespace pricer
