#include "server/adapter_operator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <thread>

#include "tests/server/adapter_files.h"
#include "tests/server/fakes.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace pricer {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using testing::FakeEngine;
using testing::FakeTensors;
using ::testing::HasSubstr;
using testing::MakeLoadedAdapter;
using testing::MakeVersion;
using testing::RecordingMetrics;
using testing::StatusIs;
using testing::TempDir;

constexpr char kBy[] = "token:ops";
constexpr auto kForever = absl::InfiniteFuture();

// toys/1 and toys/2 in a folder, of 1000 and 2000 bytes, and a watcher whose thread runs.
class AdapterOperatorTest : public ::testing::Test {
 protected:
  explicit AdapterOperatorTest(absl::Duration poll_interval = absl::Hours(1))
      : poll_interval_(poll_interval) {
    MakeVersion(root_.path(), "toys", "1");
    MakeVersion(root_.path(), "toys", "2");
    registry_.SetMemory(&memory_);
    EXPECT_OK(watcher_.Poll());
    watcher_.Start();
  }

  absl::StatusOr<AdapterHandle> Load(const std::string& directory) {
    MutexLock lock(&mutex_);
    if (!refusal_.ok()) return refusal_;
    const fs::path path = directory;
    const AdapterHandle adapter = MakeLoadedAdapter(path.parent_path().filename().string(),
                                                    std::stoll(path.filename().string()));
    memory_.Add(adapter, std::make_shared<FakeTensors>(false), nullptr);
    return adapter;
  }
  void RefuseLoads(const absl::Status& refusal) {
    MutexLock lock(&mutex_);
    refusal_ = refusal;
  }
  AdapterStatus StatusOf(int64_t version) const {
    for (const AdapterStatus& status : registry_.List("toys")) {
      if (status.key.version == version) return status;
    }
    return {};
  }

  const absl::Duration poll_interval_;
  TempDir root_;
  RecordingMetrics metrics_;
  Mutex mutex_;
  absl::Status refusal_ ABSL_GUARDED_BY(mutex_);
  AdapterRegistry registry_{"", &metrics_, Clock::System()};
  AdapterMemory memory_{{.host_bytes = 3000},
                        {.read = [](const LoadedAdapter&) -> absl::StatusOr<TensorsHandle> {
                           return std::make_shared<FakeTensors>(false);
                         },
                         .copy_to_device = nullptr},
                        &metrics_,
                        Clock::System()};
  AdapterWatcher watcher_{{.root = root_.path(), .poll_interval = poll_interval_},
                          [this](const std::string& directory) { return Load(directory); },
                          &registry_,
                          &metrics_,
                          Clock::System()};
  AdapterOperator operator_{&registry_, &watcher_, &memory_};
};

TEST_F(AdapterOperatorTest, UnloadTakesAVersionAwayAndSaysWhatItGaveBack) {
  ASSERT_OK_AND_ASSIGN(const UnloadResult result, operator_.Unload({"toys", 2}, kBy, kForever));
  EXPECT_EQ(result.freed[static_cast<int>(MemoryTier::kHost)], 2000);
  EXPECT_FALSE(result.in_use);
  EXPECT_EQ(StatusOf(2).state, AdapterState::kEnd);
  EXPECT_EQ(StatusOf(2).reason, "unloaded by token:ops");
  EXPECT_EQ((*registry_.Find("toys", std::nullopt))->key.version, 1);
  EXPECT_THAT(registry_.Find("toys", 2),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("unloaded by token:ops")));
  EXPECT_EQ(metrics_.values().memory_bytes[static_cast<int>(MemoryTier::kHost)], 1000);
  EXPECT_EQ(metrics_.values().unloaded, 1);
}

TEST_F(AdapterOperatorTest, WhatWasUnloadedStaysAwayUntilItIsLoadedAgain) {
  ASSERT_OK(operator_.Unload({"toys", 2}, kBy, kForever));
  watcher_.Stop();
  ASSERT_OK(watcher_.Poll());
  EXPECT_EQ(StatusOf(2).state, AdapterState::kEnd);
}

class AdapterOperatorPollingTest : public AdapterOperatorTest {
 protected:
  AdapterOperatorPollingTest() : AdapterOperatorTest(absl::Milliseconds(1)) {}

  // Removes toys/2, and asks for it by its number until it is kept for who does.
  void RemoveAndKeep() {
    fs::remove_all(root_.File("toys/2"));
    while ((*registry_.Find("toys", std::nullopt))->key.version == 2) {
      ASSERT_OK(registry_.Route("toys", 2, "").status());
    }
    ASSERT_OK(registry_.Route("toys", 2, "").status());
  }
};

TEST_F(AdapterOperatorPollingTest, WhatIsKeptThoughItIsGoneCanBeUnloaded) {
  RemoveAndKeep();
  ASSERT_OK(operator_.Unload({"toys", 2}, kBy, kForever));
  // What comes back stays away: the watcher has seen it when it has what came after it.
  MakeVersion(root_.path(), "toys", "2");
  MakeVersion(root_.path(), "wine", "1");
  while (!registry_.Find("wine", std::nullopt).ok()) std::this_thread::yield();
  EXPECT_EQ(StatusOf(2).state, AdapterState::kEnd);
  ASSERT_OK_AND_ASSIGN(const AdapterStatus back, operator_.Load({"toys", 2}, kBy, kForever));
  EXPECT_EQ(back.state, AdapterState::kAvailable);
}

TEST_F(AdapterOperatorPollingTest, WhatIsKeptThoughItIsGoneGivesWayToWhatIsLoadedInItsPlace) {
  ASSERT_OK_AND_ASSIGN(const AdapterHandle old, registry_.Find("toys", 2));
  RemoveAndKeep();
  MakeVersion(root_.path(), "toys", "2");
  ASSERT_OK(operator_.Load({"toys", 2}, kBy, kForever));
  ASSERT_OK_AND_ASSIGN(const AdapterHandle now, registry_.Find("toys", 2));
  EXPECT_NE(now, old);
}

TEST_F(AdapterOperatorTest, ARequestKeepsAnUnloadedVersionAndItsBytes) {
  ASSERT_OK_AND_ASSIGN(AdapterHandle held, registry_.Find("toys", 2));
  ASSERT_OK_AND_ASSIGN(const UnloadResult result, operator_.Unload({"toys", 2}, kBy, kForever));
  EXPECT_TRUE(result.in_use);
  EXPECT_EQ(result.freed[static_cast<int>(MemoryTier::kHost)], 0);
  EXPECT_EQ(StatusOf(2).state, AdapterState::kUnloading);
  // It can even be fetched again.
  EXPECT_OK(memory_.Fetch(held, kForever));
  held.reset();
  const auto freed = registry_.FreeUnused();
  ASSERT_EQ(freed.size(), 1u);
  EXPECT_EQ(freed[0].bytes[static_cast<int>(MemoryTier::kHost)], 2000);
}

TEST_F(AdapterOperatorTest, ALabelKeepsAVersionFromBeingUnloaded) {
  AdapterLabels labels;
  ASSERT_OK(labels.Set("canary", {.version = 1, .percent = 5}, 2, {"test", absl::Now()}));
  registry_.SetLabels("toys", labels);
  EXPECT_THAT(
      operator_.Unload({"toys", 1}, kBy, kForever),
      StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("labels lead to it: canary")));
  EXPECT_EQ(StatusOf(1).state, AdapterState::kAvailable);
}

TEST_F(AdapterOperatorTest, LoadBringsBackWhatWasUnloadedAndFindsWhatIsNew) {
  ASSERT_OK(operator_.Unload({"toys", 2}, kBy, kForever));
  ASSERT_OK_AND_ASSIGN(const AdapterStatus back, operator_.Load({"toys", 2}, kBy, kForever));
  EXPECT_EQ(back.state, AdapterState::kAvailable);
  EXPECT_EQ(back.place.tier, MemoryTier::kHost);
  MakeVersion(root_.path(), "toys", "7");
  // 7000 bytes find no room.
  EXPECT_THAT(operator_.Load({"toys", 0}, kBy, kForever),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("7000 bytes")));
  MakeVersion(root_.path(), "wine", "3");
  ASSERT_OK_AND_ASSIGN(const AdapterStatus newest, operator_.Load({"wine", 0}, kBy, kForever));
  EXPECT_EQ(newest.key, (AdapterKey{"wine", 3}));
  EXPECT_EQ(newest.place.tier, MemoryTier::kHost);
}

TEST_F(AdapterOperatorTest, LoadTriesARefusedVersionAtOnceAndSaysWhyItIsRefused) {
  MakeVersion(root_.path(), "wine", "1");
  RefuseLoads(absl::DataLossError("wine/1: short file"));
  for (int i = 0; i < 2; ++i) {
    EXPECT_THAT(operator_.Load({"wine", 1}, kBy, kForever),
                StatusIs(absl::StatusCode::kDataLoss, HasSubstr("short file")));
  }
  RefuseLoads(absl::OkStatus());
  EXPECT_OK(operator_.Load({"wine", 1}, kBy, kForever));
  EXPECT_EQ(metrics_.values().load_failures, 2);
}

TEST_F(AdapterOperatorTest, WhatIsNotThereIsAnErrorThatSaysSo) {
  EXPECT_THAT(operator_.Load({"toys", 9}, kBy, kForever),
              StatusIs(absl::StatusCode::kNotFound,
                       AllOf(HasSubstr(root_.path()), HasSubstr("no such version of toys"))));
  EXPECT_THAT(operator_.Load({"wine", 0}, kBy, kForever),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("no version of wine")));
  EXPECT_THAT(operator_.Load({"base", 0}, kBy, kForever),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(operator_.Load({"../toys", 1}, kBy, kForever),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(operator_.Unload({"toys", 0}, kBy, kForever),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("version")));
  EXPECT_THAT(operator_.Unload({"toys", 9}, kBy, kForever),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("not available")));
  EXPECT_THAT(operator_.SetPinned({"toys", 9}, true, kBy, kForever),
              StatusIs(absl::StatusCode::kNotFound));
  EXPECT_THAT(operator_.UnloadAll("wine", kBy, kForever), StatusIs(absl::StatusCode::kNotFound));
}

TEST_F(AdapterOperatorTest, PinsHoldAndAreRefusedBeyondTheMemory) {
  ASSERT_OK_AND_ASSIGN(const AdapterStatus pinned,
                       operator_.SetPinned({"toys", 2}, true, kBy, kForever));
  EXPECT_TRUE(pinned.place.pinned);
  EXPECT_EQ(pinned.place.tier, MemoryTier::kHost);
  MakeVersion(root_.path(), "wine", "2");
  EXPECT_THAT(operator_.Load({"wine", 2}, kBy, kForever),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("pinned")));
  ASSERT_OK(operator_.SetPinned({"toys", 2}, false, kBy, kForever));
  EXPECT_OK(operator_.Load({"wine", 2}, kBy, kForever));
  EXPECT_EQ(StatusOf(2).place.tier, MemoryTier::kDisk);
}

TEST_F(AdapterOperatorTest, UnloadAllTakesEveryVersion) {
  ASSERT_OK(operator_.UnloadAll("toys", kBy, kForever));
  EXPECT_EQ(StatusOf(1).state, AdapterState::kEnd);
  EXPECT_EQ(StatusOf(2).state, AdapterState::kEnd);
  EXPECT_THAT(operator_.UnloadAll("toys", kBy, kForever), StatusIs(absl::StatusCode::kNotFound));
}

TEST_F(AdapterOperatorTest, AWatcherThatHasStoppedAnswersUnavailable) {
  watcher_.Stop();
  EXPECT_THAT(operator_.Load({"toys", 1}, kBy, kForever), StatusIs(absl::StatusCode::kUnavailable));
}

}  // namespace
}  // namespace pricer
