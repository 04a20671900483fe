#include "client/adapter_sync.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "client/folder_labels.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace pricer {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::IsOkAndHolds;
using testing::StatusIs;
using testing::TempDir;

constexpr auto kFailedPrecondition = absl::StatusCode::kFailedPrecondition;

// Between folders; tests/objects has a store.
class AdapterSyncTest : public ::testing::Test {
 protected:
  AdapterSyncTest() {
    for (const std::string& root : {options_.from, options_.to}) {
      std::filesystem::create_directories(root);
    }
  }

  static void Publish(const std::string& root, const std::string& version,
                      const std::string& weights = "weights") {
    const std::string path = absl::StrCat(root, "/", version);
    std::filesystem::create_directories(path);
    EXPECT_OK(WriteFile(path + "/adapter_model.safetensors", weights));
    EXPECT_OK(WriteFile(path + "/_READY", "digest"));
  }
  static void Label(const std::string& root, const std::string& label, int64_t version) {
    EXPECT_OK(SetFolderLabel(root, "shop", label, {.version = version}).status());
  }
  AdapterSyncReport Run() {
    lines_.clear();
    const auto report = SyncAdapters(options_, nullptr,
                                     [this](const std::string& line) { lines_.push_back(line); });
    EXPECT_OK(report.status());
    return report.ok() ? *report : AdapterSyncReport();
  }
  bool Has(const std::string& path) const {
    return std::filesystem::exists(absl::StrCat(options_.to, "/", path));
  }
  int64_t StableThere() const {
    return GetFolderLabels(options_.to, "shop")->Target("stable").value_or(LabelTarget()).version;
  }

  const TempDir dir_;
  AdapterSyncOptions options_ = {.from = dir_.File("from"), .to = dir_.File("to")};
  std::vector<std::string> lines_;
};

TEST_F(AdapterSyncTest, CopiesVersionsAndThenTheirLabels) {
  Publish(options_.from, "shop/1");
  Publish(options_.from, "shop/2", "others");
  Label(options_.from, "stable", 1);
  const AdapterSyncReport report = Run();
  EXPECT_EQ(report.versions, 2);
  EXPECT_EQ(report.copied, 2);
  EXPECT_EQ(report.labels, 1);
  EXPECT_THAT(lines_, ElementsAre("shop/1 is copied", "shop/2 is copied",
                                  "shop: labels of generation 1 are copied"));
  EXPECT_THAT(ReadFile(options_.to + "/shop/2/adapter_model.safetensors"), IsOkAndHolds("others"));
  EXPECT_THAT(ReadFile(options_.to + "/shop/2/_READY"), IsOkAndHolds("digest"));
  EXPECT_EQ(StableThere(), 1);
  Run();
  EXPECT_THAT(lines_, IsEmpty());
  // What has come since.
  Publish(options_.from, "shop/3");
  Label(options_.from, "stable", 3);
  Run();
  EXPECT_THAT(lines_, ElementsAre("shop/3 is copied", "shop: labels of generation 2 are copied"));
  EXPECT_EQ(StableThere(), 3);
}

TEST_F(AdapterSyncTest, WhatIsNotReadyOrNoAdapterIsLeft) {
  Publish(options_.from, "shop/1");
  std::filesystem::remove(options_.from + "/shop/1/_READY");
  Publish(options_.from, "shop/.tmp-1");
  Publish(options_.from, "Shop/1");
  Publish(options_.from, "shop/01");
  EXPECT_EQ(Run().versions, 0);
  EXPECT_THAT(lines_, IsEmpty());
  EXPECT_FALSE(Has("shop"));
}

TEST_F(AdapterSyncTest, WhatAKilledCopyHasLeftIsReplaced) {
  Publish(options_.from, "shop/1");
  Publish(options_.to, "shop/1", "half");
  std::filesystem::remove(options_.to + "/shop/1/_READY");
  EXPECT_EQ(Run().copied, 1);
  EXPECT_THAT(ReadFile(options_.to + "/shop/1/adapter_model.safetensors"), IsOkAndHolds("weights"));
}

TEST_F(AdapterSyncTest, WhatAKilledCopyHasBegunIsRemovedOnceNobodyWritesToIt) {
  const auto age = [this](const std::string& path, std::chrono::minutes minutes) {
    const auto now = std::filesystem::file_time_type::clock::now();
    std::filesystem::last_write_time(absl::StrCat(options_.to, "/", path), now - minutes);
  };
  Publish(options_.from, "shop/1");
  for (const char* const begun : {"shop/.tmp-1", "shop/.tmp-2", ".tmp-3", "shop/other"}) {
    Publish(options_.to, begun, "half");
    for (const char* const file : {"/adapter_model.safetensors", "/_READY", ""}) {
      age(absl::StrCat(begun, file), std::chrono::minutes(61));
    }
  }
  // It is being written.
  age("shop/.tmp-2/adapter_model.safetensors", std::chrono::minutes(59));
  Run();
  EXPECT_FALSE(Has("shop/.tmp-1"));
  for (const char* const stays : {"shop/1", "shop/.tmp-2", ".tmp-3", "shop/other"}) {
    EXPECT_TRUE(Has(stays)) << stays;
  }
  // Not behind a link.
  Publish(options_.from, "toys/1");
  Publish(dir_.File("elsewhere"), ".tmp-1");
  std::filesystem::create_directory_symlink(dir_.File("elsewhere"), options_.to + "/toys");
  for (const char* const file : {"/adapter_model.safetensors", "/_READY", ""}) {
    age(absl::StrCat("toys/.tmp-1", file), std::chrono::minutes(61));
  }
  Run();
  EXPECT_TRUE(Has("toys/.tmp-1"));
}

TEST_F(AdapterSyncTest, AVersionThatHasChangedIsAFailureAndTheRestIsCopied) {
  Publish(options_.from, "shop/1", "longer weights");
  Publish(options_.to, "shop/1");
  Publish(options_.from, "shop/2");
  const AdapterSyncReport report = Run();
  EXPECT_EQ(report.copied, 1);
  EXPECT_THAT(
      report.failures,
      ElementsAre(StatusIs(kFailedPrecondition, HasSubstr("shop/1: its files have other sizes"))));
  EXPECT_THAT(ReadFile(options_.to + "/shop/1/adapter_model.safetensors"), IsOkAndHolds("weights"));
}

TEST_F(AdapterSyncTest, ALinkOutOfTheFolderIsNotFollowed) {
  ASSERT_OK(WriteFile(dir_.File("secret"), "secret"));
  Publish(options_.from, "shop/1");
  std::filesystem::create_symlink(dir_.File("secret"), options_.from + "/shop/1/extra");
  EXPECT_THAT(Run().failures,
              ElementsAre(StatusIs(absl::StatusCode::kDataLoss, HasSubstr("leads out of"))));
  EXPECT_FALSE(Has("shop/1"));
}

TEST_F(AdapterSyncTest, LabelsThatWereMovedInBothPlacesStay) {
  Publish(options_.from, "shop/1");
  Publish(options_.from, "shop/2");
  Label(options_.from, "stable", 1);
  Run();
  Label(options_.to, "stable", 2);
  const auto conflict =
      ElementsAre(StatusIs(kFailedPrecondition, HasSubstr("its labels were moved in")));
  EXPECT_THAT(Run().failures, conflict);
  Label(options_.from, "canary", 2);  // the same generation
  EXPECT_THAT(Run().failures, conflict);
  EXPECT_EQ(StableThere(), 2);
  Label(options_.from, "shadow", 2);
  EXPECT_THAT(Run().failures, IsEmpty());
  EXPECT_EQ(StableThere(), 1);
}

TEST_F(AdapterSyncTest, ALabelWaitsForItsVersion) {
  Publish(options_.from, "shop/1");
  Publish(options_.from, "shop/2");
  ASSERT_OK(WriteFile(dir_.File("secret"), ""));
  std::filesystem::create_symlink(dir_.File("secret"), options_.from + "/shop/2/secret");
  Label(options_.from, "stable", 2);
  EXPECT_THAT(Run().failures,
              ElementsAre(StatusIs(absl::StatusCode::kDataLoss),
                          StatusIs(kFailedPrecondition, HasSubstr("label stable is version 2"))));
  EXPECT_FALSE(Has("shop/labels.json"));
  std::filesystem::remove(options_.from + "/shop/2/secret");
  EXPECT_THAT(Run().failures, IsEmpty());
  EXPECT_EQ(StableThere(), 2);
}

TEST_F(AdapterSyncTest, ALabelOfWhatIsNowhereHoldsUpNothing) {
  Publish(options_.from, "shop/1");
  Publish(options_.from, "shop/2");
  Label(options_.from, "stable", 1);
  Label(options_.from, "canary", 2);
  std::filesystem::remove_all(options_.from + "/shop/2");
  EXPECT_THAT(Run().failures, IsEmpty());
  EXPECT_EQ(StableThere(), 1);
}

TEST_F(AdapterSyncTest, NothingIsRemovedBehindALink) {
  options_.remove = true;
  Publish(options_.from, "shop/1");
  Publish(dir_.path(), "archive");
  std::filesystem::create_directories(options_.to + "/shop");
  std::filesystem::create_symlink(dir_.File("archive"), options_.to + "/shop/7");
  EXPECT_THAT(Run().failures,
              ElementsAre(StatusIs(absl::StatusCode::kDataLoss, HasSubstr("leads out of"))));
  EXPECT_TRUE(std::filesystem::exists(dir_.File("archive/_READY")));
}

TEST_F(AdapterSyncTest, OneAdapterIsCopiedAlone) {
  Publish(options_.from, "shop/1");
  Publish(options_.from, "toys/1");
  options_.name = "toys";
  EXPECT_EQ(Run().versions, 1);
  EXPECT_THAT(lines_, ElementsAre("toys/1 is copied"));
}

TEST_F(AdapterSyncTest, WhatIsNoAdapterIsNotLookedInto) {
  Publish(options_.from, "shop/1");
  std::filesystem::create_directories(options_.from + "/lost+found/1");
  ASSERT_OK(WriteFile(options_.from + "/shop/2", "no folder"));
  ASSERT_OK(WriteFile(options_.from + "/notes", "no folder"));
  const AdapterSyncReport report = Run();
  EXPECT_EQ(report.versions, 1);
  EXPECT_THAT(report.failures, IsEmpty());
}

TEST_F(AdapterSyncTest, RemovesWhatIsGoneButNotWhatALabelNames) {
  options_.remove = true;
  for (const char* const version : {"shop/1", "shop/2", "shop/3"}) Publish(options_.from, version);
  Label(options_.from, "stable", 1);
  Run();
  for (const char* const version : {"/shop/1", "/shop/2"}) {
    std::filesystem::remove_all(options_.from + version);
  }
  EXPECT_EQ(Run().removed, 1);
  EXPECT_THAT(lines_, ElementsAre("shop/2 is removed"));
  EXPECT_TRUE(Has("shop/1"));
  EXPECT_FALSE(Has("shop/2"));
  // An empty place is more likely a wrong one.
  std::filesystem::remove_all(options_.from + "/shop");
  EXPECT_EQ(Run().removed, 0);
  EXPECT_TRUE(Has("shop/3"));
}

TEST_F(AdapterSyncTest, EndsBetweenVersions) {
  Publish(options_.from, "shop/1");
  EXPECT_THAT(SyncAdapters(
                  options_, [] { return true; }, [](const std::string&) {})
                  .status(),
              StatusIs(absl::StatusCode::kCancelled));
  EXPECT_FALSE(Has("shop"));
}

TEST_F(AdapterSyncTest, ExpectsTwoPlacesOneOfThemAFolder) {
  const auto validate = [](const std::string& from, const std::string& to) {
    return AdapterSyncOptions{.from = from, .to = to}.Validate();
  };
  EXPECT_OK(validate("a", "s3://b/c"));
  for (const auto& [from, to] :
       {std::pair("", "b"), {"a", ""}, {"a", "a"}, {"s3://a/b", "s3://c/d"}}) {
    EXPECT_THAT(validate(from, to), StatusIs(absl::StatusCode::kInvalidArgument));
  }
  options_.from = dir_.File("none");
  EXPECT_THAT(SyncAdapters(options_, nullptr, [](const std::string&) {}).status(),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr(dir_.File("none"))));
}

}  // namespace
}  // namespace pricer
