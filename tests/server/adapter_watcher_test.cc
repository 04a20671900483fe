#include "server/adapter_watcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "server/adapter_memory.h"
#include "server/adapter_registry.h"
#include "tests/server/adapter_files.h"
#include "tests/server/fakes.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace pricer {
namespace {

namespace fs = std::filesystem;

using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::FakeClock;
using testing::FakeTensors;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::MakeLoadedAdapter;
using testing::MakeVersion;
using testing::RecordingMetrics;
using testing::StatusIs;
using testing::TempDir;
using testing::WriteText;

class AdapterWatcherTest : public ::testing::Test {
 protected:
  AdapterWatcherTest() { fs::create_directory(root_); }

  absl::StatusOr<AdapterHandle> Load(const std::string& directory) {
    const fs::path path = directory;
    const std::string name = path.parent_path().filename().string();
    const std::string version = path.filename().string();
    loads_.push_back(name + "/" + version);
    if (during_load_) during_load_();
    const auto failure = failures_.find(loads_.back());
    if (failure != failures_.end()) return failure->second;
    return AdapterHandle(MakeLoadedAdapter(name, std::stoll(version)));
  }

  // "toys/1 available", ...
  std::vector<std::string> States() const {
    std::vector<std::string> states;
    for (const AdapterStatus& status : registry_.List()) {
      states.push_back(status.key.name + "/" + std::to_string(status.key.version) + " " +
                       std::string(AdapterStateName(status.state)));
    }
    return states;
  }
  // What was loaded since the last call.
  std::vector<std::string> TakeLoads() { return std::exchange(loads_, {}); }

  TempDir parent_;
  const std::string root_ = parent_.File("adapters");
  FakeClock clock_;
  RecordingMetrics metrics_;
  AdapterRegistry registry_{"", &metrics_, &clock_};
  std::map<std::string, absl::Status> failures_;
  std::function<void()> during_load_;
  std::vector<std::string> loads_;
  AdapterWatcher watcher_{{.root = root_},
                          [this](const std::string& directory) { return Load(directory); },
                          &registry_,
                          &metrics_,
                          &clock_};
};

TEST_F(AdapterWatcherTest, LoadsWhatIsInTheFolderAndWhatComesLater) {
  MakeVersion(root_, "toys", "1");
  ASSERT_OK(watcher_.Poll());
  EXPECT_THAT(States(), ElementsAre("toys/1 available"));
  EXPECT_TRUE(metrics_.values().root_readable);
  MakeVersion(root_, "toys", "2");
  ASSERT_OK(watcher_.Poll());
  EXPECT_THAT(States(), ElementsAre("toys/1 available", "toys/2 available"));
  EXPECT_EQ((*registry_.Find("toys", std::nullopt))->key.version, 2);
  ASSERT_OK(watcher_.Poll());
  EXPECT_THAT(TakeLoads(), ElementsAre("toys/1", "toys/2"));
}

TEST_F(AdapterWatcherTest, DoesNotSeeAVersionBeforeItsMarker) {
  const fs::path version = MakeVersion(root_, "toys", "1", /*ready=*/false);
  ASSERT_OK(watcher_.Poll());
  EXPECT_THAT(States(), IsEmpty());
  WriteText(version / "_READY", "");
  ASSERT_OK(watcher_.Poll());
  EXPECT_THAT(States(), ElementsAre("toys/1 available"));
}

TEST_F(AdapterWatcherTest, LoadsTheNewestVersionOfANameFirst) {
  for (const char* const version : {"1", "3", "2"}) MakeVersion(root_, "toys", version);
  MakeVersion(root_, "wine", "1");
  ASSERT_OK(watcher_.Poll());
  EXPECT_THAT(TakeLoads(), ElementsAre("toys/3", "toys/2", "toys/1", "wine/1"));
}

TEST_F(AdapterWatcherTest, UnloadsAVersionThatTwoPollsInARowDidNotFind) {
  const fs::path version = MakeVersion(root_, "toys", "1");
  MakeVersion(root_, "toys", "2");
  ASSERT_OK(watcher_.Poll());
  fs::remove_all(version);
  ASSERT_OK(watcher_.Poll());
  EXPECT_THAT(States(), ElementsAre("toys/1 available", "toys/2 available"));
  ASSERT_OK(watcher_.Poll());
  // Nobody held it, so that the same poll frees it.
  EXPECT_THAT(States(), ElementsAre("toys/1 end", "toys/2 available"));
}

TEST_F(AdapterWatcherTest, AVersionThatCallsAskForByNumberStaysForThem) {
  MakeVersion(root_, "toys", "1");
  const fs::path version = MakeVersion(root_, "toys", "2");
  ASSERT_OK(watcher_.Poll());
  fs::remove_all(version);
  ASSERT_OK(registry_.Route("toys", 2, "").status());
  for (int minute = 0; minute < 15; ++minute) {
    ASSERT_OK(watcher_.Poll());
    ASSERT_OK(registry_.Route("toys", 2, "").status()) << minute;
    clock_.Advance(absl::Minutes(1));
  }
  // Who asks for none gets one that is there.
  EXPECT_EQ(registry_.Route("toys", std::nullopt, "")->adapter->key.version, 1);
  clock_.Advance(absl::Minutes(9));
  ASSERT_OK(watcher_.Poll());
  EXPECT_THAT(States(), ElementsAre("toys/1 available", "toys/2 available"));
  clock_.Advance(absl::Milliseconds(1));
  ASSERT_OK(watcher_.Poll());
  EXPECT_THAT(States(), ElementsAre("toys/1 available", "toys/2 end"));
}

TEST_F(AdapterWatcherTest, AKeptVersionIsUnloadedOnceMemoryHasNoRoomForIt) {
  const auto read = [](const LoadedAdapter&) { return std::make_shared<FakeTensors>(false); };
  AdapterMemory memory({.host_bytes = 2500}, {.read = read, .copy_to_device = nullptr}, &metrics_,
                       &clock_);
  registry_.SetMemory(&memory);
  const fs::path version = MakeVersion(root_, "toys", "1");
  MakeVersion(root_, "toys", "2");
  ASSERT_OK(watcher_.Poll());
  fs::remove_all(version);
  ASSERT_OK_AND_ASSIGN(const AdapterRoute kept, registry_.Route("toys", 1, ""));
  ASSERT_OK_AND_ASSIGN(const AdapterHandle other, registry_.Find("toys", 2));
  // Of 1,000 and 2,000 bytes: both do not fit.
  memory.Add(other, read(*other), nullptr);
  memory.Add(kept.adapter, read(*kept.adapter), nullptr);
  for (int poll = 0; poll < 3; ++poll) ASSERT_OK(watcher_.Poll());
  EXPECT_EQ(registry_.Route("toys", 1, "")->adapter, kept.adapter);
  ASSERT_OK(memory.SetPinned(other, true));
  ASSERT_OK(memory.Fetch(other, absl::InfiniteFuture()));
  ASSERT_OK(watcher_.Poll());
  EXPECT_THAT(registry_.Route("toys", 1, "").status(), StatusIs(absl::StatusCode::kNotFound));
}

// Such as the server's own checks.
TEST_F(AdapterWatcherTest, WhoLooksForAVersionDoesNotKeepIt) {
  const fs::path version = MakeVersion(root_, "toys", "1");
  ASSERT_OK(watcher_.Poll());
  fs::remove_all(version);
  for (int poll = 0; poll < 2; ++poll) {
    ASSERT_OK(registry_.Find("toys", 1).status());
    ASSERT_OK(watcher_.Poll());
  }
  EXPECT_THAT(States(), ElementsAre("toys/1 end"));
}

TEST_F(AdapterWatcherTest, AVersionThatWasKeptIsLoadedAnewWhenItComesBack) {
  const fs::path version = MakeVersion(root_, "toys", "1");
  ASSERT_OK(watcher_.Poll());
  fs::remove_all(version);
  ASSERT_OK(registry_.Route("toys", 1, "").status());
  for (int poll = 0; poll < 3; ++poll) ASSERT_OK(watcher_.Poll());
  // Another root that lacks it is none that lacks what is served.
  fs::rename(root_, parent_.File("aside"));
  EXPECT_THAT(watcher_.Poll(), StatusIs(absl::StatusCode::kUnavailable));
  fs::create_directory(root_);
  for (int poll = 0; poll < 3; ++poll) ASSERT_OK(watcher_.Poll());
  EXPECT_THAT(States(), ElementsAre("toys/1 available"));
  MakeVersion(root_, "toys", "1");
  ASSERT_OK(watcher_.Poll());
  EXPECT_THAT(States(), ElementsAre("toys/1 available"));
  EXPECT_THAT(TakeLoads(), ElementsAre("toys/1", "toys/1"));
}

TEST_F(AdapterWatcherTest, AVersionThatComesBackInTimeStays) {
  const fs::path version = MakeVersion(root_, "toys", "1");
  ASSERT_OK(watcher_.Poll());
  for (int i = 0; i < 3; ++i) {
    fs::rename(version, parent_.File("aside"));
    ASSERT_OK(watcher_.Poll());
    fs::rename(parent_.File("aside"), version);
    ASSERT_OK(watcher_.Poll());
  }
  EXPECT_THAT(States(), ElementsAre("toys/1 available"));
  EXPECT_THAT(TakeLoads(), ElementsAre("toys/1"));
}

TEST_F(AdapterWatcherTest, AVersionPublishedAgainAfterItWasUnloadedIsLoadedAgain) {
  const fs::path version = MakeVersion(root_, "toys", "1");
  ASSERT_OK(watcher_.Poll());
  fs::remove_all(version);
  ASSERT_OK(watcher_.Poll());
  ASSERT_OK(watcher_.Poll());
  MakeVersion(root_, "toys", "1");
  ASSERT_OK(watcher_.Poll());
  EXPECT_THAT(States(), ElementsAre("toys/1 available"));
  EXPECT_THAT(TakeLoads(), ElementsAre("toys/1", "toys/1"));
}

TEST_F(AdapterWatcherTest, AnUnloadedVersionIsFreedWhenItsLastRequestIsDone) {
  const fs::path version = MakeVersion(root_, "toys", "1");
  ASSERT_OK(watcher_.Poll());
  AdapterHandle held = *registry_.Find("toys", std::nullopt);
  fs::remove_all(version);
  ASSERT_OK(watcher_.Poll());
  ASSERT_OK(watcher_.Poll());
  EXPECT_THAT(States(), ElementsAre("toys/1 unloading"));
  held.reset();
  ASSERT_OK(watcher_.Poll());
  EXPECT_THAT(States(), ElementsAre("toys/1 end"));
}

TEST_F(AdapterWatcherTest, AnUnreadableRootUnloadsNothing) {
  MakeVersion(root_, "toys", "1");
  ASSERT_OK(watcher_.Poll());
  fs::rename(root_, parent_.File("aside"));
  for (int i = 0; i < 3; ++i) {
    EXPECT_THAT(watcher_.Poll(), StatusIs(absl::StatusCode::kUnavailable));
    EXPECT_FALSE(metrics_.values().root_readable);
  }
  EXPECT_THAT(States(), ElementsAre("toys/1 available"));
  fs::rename(parent_.File("aside"), root_);
  ASSERT_OK(watcher_.Poll());
  EXPECT_TRUE(metrics_.values().root_readable);
  EXPECT_THAT(States(), ElementsAre("toys/1 available"));
}

TEST_F(AdapterWatcherTest, PollsOnBothSidesOfAnUnreadableRootAreNotInARow) {
  const fs::path version = MakeVersion(root_, "toys", "1");
  ASSERT_OK(watcher_.Poll());
  fs::rename(version, parent_.File("version"));
  ASSERT_OK(watcher_.Poll());
  fs::rename(root_, parent_.File("aside"));
  EXPECT_THAT(watcher_.Poll(), StatusIs(absl::StatusCode::kUnavailable));
  fs::rename(parent_.File("aside"), root_);
  ASSERT_OK(watcher_.Poll());
  EXPECT_THAT(States(), ElementsAre("toys/1 available"));
  ASSERT_OK(watcher_.Poll());
  EXPECT_THAT(States(), ElementsAre("toys/1 end"));
}

TEST_F(AdapterWatcherTest, ASwappedRootUnloadsNothing) {
  MakeVersion(root_, "toys", "1");
  ASSERT_OK(watcher_.Poll());
  fs::rename(root_, parent_.File("aside"));
  fs::create_directory(root_);
  MakeVersion(root_, "wine", "1");
  for (int i = 0; i < 3; ++i) {
    EXPECT_THAT(watcher_.Poll(),
                StatusIs(absl::StatusCode::kUnavailable, HasSubstr("another directory")));
    EXPECT_FALSE(metrics_.values().root_readable);
  }
  EXPECT_THAT(States(), ElementsAre("toys/1 available"));
}

TEST_F(AdapterWatcherTest, AnotherRootThatHoldsAllThatIsServedTakesTheOldOnesPlace) {
  MakeVersion(root_, "toys", "1");
  ASSERT_OK(watcher_.Poll());
  fs::rename(root_, parent_.File("aside"));
  MakeVersion(root_, "toys", "1");
  MakeVersion(root_, "toys", "2");
  ASSERT_OK(watcher_.Poll());
  EXPECT_TRUE(metrics_.values().root_readable);
  EXPECT_THAT(States(), ElementsAre("toys/1 available", "toys/2 available"));
  EXPECT_THAT(TakeLoads(), ElementsAre("toys/1", "toys/2"));
}

TEST_F(AdapterWatcherTest, AnUnreadableNameUnloadsNothingOfItself) {
  MakeVersion(root_, "toys", "1");
  const fs::path wine = MakeVersion(root_, "wine", "1");
  ASSERT_OK(watcher_.Poll());
  fs::remove_all(fs::path(root_) / "toys");
  fs::create_symlink("toys", fs::path(root_) / "toys");
  fs::remove_all(wine);
  for (int i = 0; i < 3; ++i) ASSERT_OK(watcher_.Poll());
  EXPECT_THAT(States(), ElementsAre("toys/1 available", "wine/1 end"));
}

TEST_F(AdapterWatcherTest, SaysOnceThatANameIsUnreadableAndOnceThatItIsReadableAgain) {
  fs::create_symlink("toys", fs::path(root_) / "toys");
  ::testing::internal::CaptureStderr();
  ASSERT_OK(watcher_.Poll());
  EXPECT_THAT(
      ::testing::internal::GetCapturedStderr(),
      AllOf(HasSubstr("\"warning\""), HasSubstr(root_ + "/toys"), HasSubstr("symbolic links")));
  ::testing::internal::CaptureStderr();
  ASSERT_OK(watcher_.Poll());
  EXPECT_THAT(::testing::internal::GetCapturedStderr(), IsEmpty());
  fs::remove(fs::path(root_) / "toys");
  ::testing::internal::CaptureStderr();
  ASSERT_OK(watcher_.Poll());
  EXPECT_THAT(::testing::internal::GetCapturedStderr(), HasSubstr("readable again"));
}

TEST_F(AdapterWatcherTest, ABadVersionIsReportedAndTheOldOneStays) {
  MakeVersion(root_, "toys", "1");
  ASSERT_OK(watcher_.Poll());
  failures_["toys/2"] = absl::DataLossError("no tensor score.weight");
  MakeVersion(root_, "toys", "2");
  MakeVersion(root_, "wine", "1");
  ASSERT_OK(watcher_.Poll());
  EXPECT_THAT(States(), ElementsAre("toys/1 available", "toys/2 end", "wine/1 available"));
  EXPECT_EQ(registry_.List("toys")[1].reason, "no tensor score.weight");
  EXPECT_EQ((*registry_.Find("toys", std::nullopt))->key.version, 1);
  EXPECT_EQ(metrics_.values().load_failures, 1);
}

TEST_F(AdapterWatcherTest, ABadVersionIsNotTriedAgainUntilItsFilesChange) {
  failures_["toys/1"] = absl::DataLossError("short file");
  const fs::path version = MakeVersion(root_, "toys", "1");
  for (int i = 0; i < 5; ++i) {
    ASSERT_OK(watcher_.Poll());
    clock_.Advance(absl::Hours(1));
  }
  EXPECT_THAT(TakeLoads(), ElementsAre("toys/1"));
  failures_.clear();
  WriteText(version / "adapter_model.safetensors", "whole");
  ASSERT_OK(watcher_.Poll());
  EXPECT_THAT(TakeLoads(), ElementsAre("toys/1"));
  EXPECT_THAT(States(), ElementsAre("toys/1 available"));
}

TEST_F(AdapterWatcherTest, AVersionThatKeepsChangingIsTriedLessAndLessOften) {
  failures_["toys/1"] = absl::DataLossError("short file");
  const fs::path version = MakeVersion(root_, "toys", "1");
  std::string content;
  int seconds = 0;
  std::vector<int> tried_at;
  for (; seconds <= 16; ++seconds) {
    WriteText(version / "growing", content += "x");
    ASSERT_OK(watcher_.Poll());
    if (!TakeLoads().empty()) tried_at.push_back(seconds);
    clock_.Advance(absl::Seconds(1));
  }
  EXPECT_THAT(tried_at, ElementsAre(0, 1, 3, 7, 15));
}

TEST_F(AdapterWatcherTest, AVersionCopiedMarkerFirstIsTriedAsSoonAsItStaysTheSame) {
  failures_["toys/1"] = absl::DataLossError("short file");
  const fs::path version = MakeVersion(root_, "toys", "1");
  std::string content;
  for (int i = 0; i < 100; ++i) {
    WriteText(version / "growing", content += "x");
    ASSERT_OK(watcher_.Poll());
    clock_.Advance(absl::Seconds(1));
  }
  // The last poll saw the last change; one that sees no other is enough.
  TakeLoads();
  ASSERT_OK(watcher_.Poll());
  EXPECT_THAT(TakeLoads(), ElementsAre("toys/1"));
  // The delay began anew with that failure.
  failures_.clear();
  clock_.Advance(absl::Seconds(1));
  WriteText(version / "growing", "whole");
  ASSERT_OK(watcher_.Poll());
  EXPECT_THAT(States(), ElementsAre("toys/1 available"));
}

TEST_F(AdapterWatcherTest, AVersionReplacedWhileItIsLoadedIsRefusedAndThenLoadedAsItHasBecome) {
  const fs::path version = MakeVersion(root_, "toys", "1");
  WriteText(version / "weights", "old");
  // What was read of it then does not fit what its manifest says.
  during_load_ = [&] {
    WriteText(version / "weights", "new and longer");
    failures_["toys/1"] = absl::DataLossError("weights: expected SHA-256 a, got b");
  };
  ASSERT_OK(watcher_.Poll());
  EXPECT_THAT(States(), ElementsAre("toys/1 end"));
  EXPECT_THAT(registry_.List().front().reason, HasSubstr("expected SHA-256 a"));
  during_load_ = nullptr;
  failures_.clear();
  for (int look = 0; look < 2; ++look) ASSERT_OK(watcher_.Poll());
  EXPECT_THAT(States(), ElementsAre("toys/1 available"));
}

TEST_F(AdapterWatcherTest, TheRetryDelayHasAnUpperBound) {
  failures_["toys/1"] = absl::UnavailableError("I/O error");
  MakeVersion(root_, "toys", "1");
  for (int i = 0; i < 100; ++i) {
    ASSERT_OK(watcher_.Poll());
    clock_.Advance(absl::Minutes(5));
  }
  EXPECT_EQ(TakeLoads().size(), 100u);
}

TEST_F(AdapterWatcherTest, AReasonThatMayPassIsTriedAgainThoughNoFileChanged) {
  failures_["toys/1"] = absl::ResourceExhaustedError("out of memory");
  MakeVersion(root_, "toys", "1");
  ASSERT_OK(watcher_.Poll());
  ASSERT_OK(watcher_.Poll());
  EXPECT_THAT(TakeLoads(), ElementsAre("toys/1"));
  failures_.clear();
  clock_.Advance(absl::Seconds(1));
  ASSERT_OK(watcher_.Poll());
  EXPECT_THAT(States(), ElementsAre("toys/1 available"));
}

TEST_F(AdapterWatcherTest, ARefusedVersionThatIsRemovedIsForgotten) {
  failures_["toys/1"] = absl::DataLossError("short file");
  const fs::path version = MakeVersion(root_, "toys", "1");
  ASSERT_OK(watcher_.Poll());
  fs::remove_all(version);
  ASSERT_OK(watcher_.Poll());
  EXPECT_THAT(States(), ElementsAre("toys/1 end"));
  ASSERT_OK(watcher_.Poll());
  EXPECT_THAT(States(), IsEmpty());
}

TEST_F(AdapterWatcherTest, ALoadThatWasCancelledIsNoRefusal) {
  failures_["toys/1"] = absl::CancelledError("the server is stopping");
  MakeVersion(root_, "toys", "1");
  ASSERT_OK(watcher_.Poll());
  EXPECT_THAT(States(), ElementsAre("toys/1 loading"));
  EXPECT_EQ(metrics_.values().load_failures, 0);
}

TEST_F(AdapterWatcherTest, ChangedFilesOfAnAvailableVersionChangeNothing) {
  const fs::path version = MakeVersion(root_, "toys", "1");
  ASSERT_OK(watcher_.Poll());
  WriteText(version / "adapter_model.safetensors", "other");
  ASSERT_OK(watcher_.Poll());
  EXPECT_THAT(TakeLoads(), ElementsAre("toys/1"));
  EXPECT_THAT(States(), ElementsAre("toys/1 available"));
}

TEST_F(AdapterWatcherTest, PollsOnItsOwnThreadUntilItIsStopped) {
  CondVar loaded;
  Mutex mutex;
  bool done = false;
  AdapterWatcher watcher(
      {.root = root_, .poll_interval = absl::Milliseconds(1)},
      [&](const std::string& directory) {
        MutexLock lock(&mutex);
        done = true;
        loaded.Signal();
        return Load(directory);
      },
      &registry_, &metrics_, &clock_);
  watcher.Start();
  MakeVersion(root_, "toys", "1");
  {
    MutexLock lock(&mutex);
    while (!done) loaded.Wait(&mutex);
  }
  watcher.Stop();
  EXPECT_THAT(States(), ElementsAre("toys/1 available"));
}

TEST_F(AdapterWatcherTest, StopGivesUpOnALoadThatHasNotReturnedByTheDeadline) {
  CondVar changed;
  Mutex mutex;
  bool loading = false;
  bool hangs = true;
  AdapterWatcher watcher(
      {.root = root_, .poll_interval = absl::Milliseconds(1)},
      [&](const std::string& directory) {
        MutexLock lock(&mutex);
        loading = true;
        changed.SignalAll();
        while (hangs) changed.Wait(&mutex);
        return Load(directory);
      },
      &registry_, &metrics_, &clock_);
  MakeVersion(root_, "toys", "1");
  watcher.Start();
  {
    MutexLock lock(&mutex);
    while (!loading) changed.Wait(&mutex);
  }
  EXPECT_FALSE(watcher.Stop(clock_.Now()));
  {
    MutexLock lock(&mutex);
    hangs = false;
    changed.SignalAll();
  }
  EXPECT_TRUE(watcher.Stop());
}

}  // namespace
}  // namespace pricer
