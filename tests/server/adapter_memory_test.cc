#include "server/adapter_memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <future>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "tests/server/fakes.h"
#include "tests/testing/status_matchers.h"

namespace pricer {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::FakeClock;
using testing::FakeTensors;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::IsOk;
using testing::MakeLoadedAdapter;
using ::testing::Not;
using testing::RecordingMetrics;
using testing::StatusIs;

constexpr int64_t kBytes = 100;  // of each adapter

// Reads and copies are told apart, can be held up and can fail.
class FakeSource {
 public:
  AdapterTensorSource Source(bool has_device) {
    AdapterTensorSource source;
    source.read = [this](const LoadedAdapter& adapter) { return Bring("read ", adapter, false); };
    if (has_device) {
      source.copy_to_device = [this](const LoadedAdapter& adapter, const TensorsHandle&) {
        return Bring("copy ", adapter, true);
      };
    }
    return source;
  }
  void Block() {
    MutexLock lock(&mutex_);
    blocked_ = true;
  }
  void Release() {
    MutexLock lock(&mutex_);
    blocked_ = false;
    changed_.SignalAll();
  }
  void Fail(int64_t version, absl::Status status) {
    MutexLock lock(&mutex_);
    failures_[version] = std::move(status);
  }
  void WaitForWork(size_t count) {
    MutexLock lock(&mutex_);
    while (work_.size() < count) changed_.Wait(&mutex_);
  }
  // "read 3", "copy 3", ... since the last call.
  std::vector<std::string> TakeWork() {
    MutexLock lock(&mutex_);
    return std::exchange(work_, {});
  }

 private:
  absl::StatusOr<TensorsHandle> Bring(const std::string& what, const LoadedAdapter& adapter,
                                      bool to_device) {
    MutexLock lock(&mutex_);
    work_.push_back(what + std::to_string(adapter.key.version));
    changed_.SignalAll();
    while (blocked_) changed_.Wait(&mutex_);
    const auto failure = failures_.find(adapter.key.version);
    if (failure != failures_.end() && !failure->second.ok()) return failure->second;
    return std::make_shared<FakeTensors>(to_device);
  }

  Mutex mutex_;
  CondVar changed_;
  bool blocked_ ABSL_GUARDED_BY(mutex_) = false;
  std::map<int64_t, absl::Status> failures_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> work_ ABSL_GUARDED_BY(mutex_);
};

class AdapterMemoryTest : public ::testing::Test {
 protected:
  // Room for so many adapters of kBytes each.
  std::unique_ptr<AdapterMemory> Make(int64_t host, int64_t device = 0) {
    return std::make_unique<AdapterMemory>(
        AdapterMemoryOptions{.host_bytes = host * kBytes,
                             .device_bytes = std::max<int64_t>(device, 1) * kBytes},
        source_.Source(device > 0), &metrics_, &clock_);
  }
  static AdapterHandle Adapter(int64_t version) {
    auto adapter = MakeLoadedAdapter("toys", version);
    adapter->memory_bytes = kBytes;
    return adapter;
  }
  // Added in this order, so that the first is the one used longest ago.
  static std::vector<AdapterHandle> AddSome(AdapterMemory* memory, int count,
                                            bool on_device = false) {
    std::vector<AdapterHandle> adapters;
    for (int i = 1; i <= count; ++i) {
      adapters.push_back(Adapter(i));
      memory->Add(adapters.back(), std::make_shared<FakeTensors>(false),
                  on_device ? std::make_shared<FakeTensors>(true) : nullptr);
    }
    return adapters;
  }
  static std::vector<MemoryTier> Tiers(const AdapterMemory& memory,
                                       const std::vector<AdapterHandle>& adapters) {
    std::vector<MemoryTier> tiers;
    for (const AdapterHandle& adapter : adapters) {
      tiers.push_back(memory.PlaceOf(adapter.get()).tier);
    }
    return tiers;
  }
  static absl::Status Fetch(AdapterMemory* memory, const AdapterHandle& adapter) {
    return memory->Fetch(adapter, absl::InfiniteFuture());
  }
  int64_t MostBytes(MemoryTier tier) {
    return metrics_.values().most_memory_bytes[static_cast<int>(tier)];
  }

  FakeClock clock_;
  RecordingMetrics metrics_;
  FakeSource source_;
};

TEST_F(AdapterMemoryTest, WhatFitsIsThereAtOnce) {
  const auto memory = Make(2);
  const auto adapters = AddSome(memory.get(), 2);
  for (const AdapterHandle& adapter : adapters) {
    ASSERT_OK_AND_ASSIGN(const TensorsHandle tensors, memory->Get(adapter));
    EXPECT_NE(tensors, nullptr);
  }
  EXPECT_THAT(source_.TakeWork(), IsEmpty());
  EXPECT_EQ(metrics_.values().memory_bytes[static_cast<int>(MemoryTier::kHost)], 2 * kBytes);
}

TEST_F(AdapterMemoryTest, TheOneUsedLongestAgoMakesRoom) {
  const auto memory = Make(2);
  auto adapters = AddSome(memory.get(), 2);
  ASSERT_OK(memory->Get(adapters[0]));
  adapters.push_back(Adapter(3));
  memory->Add(adapters[2], std::make_shared<FakeTensors>(false), nullptr);
  EXPECT_THAT(Tiers(*memory, adapters),
              ElementsAre(MemoryTier::kHost, MemoryTier::kDisk, MemoryTier::kHost));
  ASSERT_OK(Fetch(memory.get(), adapters[1]));
  EXPECT_THAT(source_.TakeWork(), ElementsAre("read 2"));
  EXPECT_THAT(Tiers(*memory, adapters),
              ElementsAre(MemoryTier::kDisk, MemoryTier::kHost, MemoryTier::kHost));
  EXPECT_EQ(MostBytes(MemoryTier::kHost), 2 * kBytes);
  EXPECT_EQ(metrics_.values().evictions[static_cast<int>(MemoryTier::kHost)], 2);
}

TEST_F(AdapterMemoryTest, TellsTheListenerWhenAnAdapterCanBeHad) {
  const auto memory = Make(1);
  const auto adapters = AddSome(memory.get(), 2);
  std::promise<absl::Status> told;
  std::future<absl::Status> status = told.get_future();
  memory->SetListener([&](const LoadedAdapter* adapter, const absl::Status& fetched) {
    EXPECT_EQ(adapter, adapters[0].get());
    ASSERT_OK_AND_ASSIGN(const TensorsHandle tensors, memory->Get(adapters[0]));
    EXPECT_NE(tensors, nullptr);
    told.set_value(fetched);
  });
  source_.Block();
  ASSERT_OK_AND_ASSIGN(const TensorsHandle none, memory->Get(adapters[0]));
  EXPECT_EQ(none, nullptr);
  source_.WaitForWork(1);
  EXPECT_EQ(status.wait_for(std::chrono::seconds(0)), std::future_status::timeout);
  source_.Release();
  EXPECT_OK(status.get());
  memory->SetListener(nullptr);
}

TEST_F(AdapterMemoryTest, WhatATaskHoldsIsFinishedFirstAndTakesNoNewTasksMeanwhile) {
  const auto memory = Make(1);
  const auto adapters = AddSome(memory.get(), 2);
  ASSERT_OK_AND_ASSIGN(TensorsHandle held, memory->Get(adapters[1]));
  // Asks for the first: the second is held.
  ASSERT_OK_AND_ASSIGN(const TensorsHandle none, memory->Get(adapters[0]));
  EXPECT_EQ(none, nullptr);
  // The thread has seen that there is no room as soon as the second gives no more.
  while (true) {
    ASSERT_OK_AND_ASSIGN(const TensorsHandle more, memory->Get(adapters[1]));
    if (more == nullptr) break;
  }
  EXPECT_THAT(source_.TakeWork(), IsEmpty());
  EXPECT_EQ(memory->PlaceOf(adapters[1].get()).tier, MemoryTier::kHost);
  held.reset();
  memory->Released();
  ASSERT_OK(Fetch(memory.get(), adapters[1]));
  // Each had its turn: what was asked for first came first.
  EXPECT_THAT(source_.TakeWork(), ElementsAre("read 1", "read 2"));
  EXPECT_EQ(MostBytes(MemoryTier::kHost), kBytes);
}

TEST_F(AdapterMemoryTest, APinnedAdapterIsNeverEvicted) {
  const auto memory = Make(2);
  auto adapters = AddSome(memory.get(), 2);
  ASSERT_OK(memory->SetPinned(adapters[0], true));
  for (int64_t version = 3; version < 6; ++version) {
    adapters.push_back(Adapter(version));
    memory->Add(adapters.back(), std::make_shared<FakeTensors>(false), nullptr);
    ASSERT_OK(Fetch(memory.get(), adapters.back()));
  }
  EXPECT_EQ(memory->PlaceOf(adapters[0].get()).tier, MemoryTier::kHost);
  EXPECT_TRUE(memory->PlaceOf(adapters[0].get()).pinned);
  ASSERT_OK(memory->SetPinned(adapters[0], false));
  ASSERT_OK(Fetch(memory.get(), adapters[1]));
  EXPECT_EQ(memory->PlaceOf(adapters[0].get()).tier, MemoryTier::kDisk);
}

TEST_F(AdapterMemoryTest, OneWhoseFilesAreGoneMakesRoomLast) {
  for (const bool has_device : {false, true}) {
    SCOPED_TRACE(has_device);
    const auto memory = Make(2, has_device ? 2 : 0);
    auto adapters = AddSome(memory.get(), 2, has_device);
    const MemoryTier fastest = has_device ? MemoryTier::kDevice : MemoryTier::kHost;
    memory->SetGone(adapters[0]);
    for (int64_t version = 3; version < 6; ++version) {
      adapters.push_back(Adapter(version));
      memory->Add(adapters.back(), std::make_shared<FakeTensors>(false), nullptr);
      ASSERT_OK(Fetch(memory.get(), adapters.back()));
    }
    EXPECT_EQ(memory->PlaceOf(adapters[0].get()).tier, fastest);
    // Also where others are in use: they are let finish. The thread waits for them as soon as
    // one gives no more.
    const AdapterHandle& last = adapters.back();
    ASSERT_OK_AND_ASSIGN(TensorsHandle held, memory->Get(last));
    ASSERT_OK_AND_ASSIGN(const TensorsHandle wanted, memory->Get(adapters[1]));
    EXPECT_EQ(wanted, nullptr);
    while (true) {
      ASSERT_OK_AND_ASSIGN(const TensorsHandle more, memory->Get(last));
      if (more == nullptr) break;
    }
    EXPECT_EQ(memory->PlaceOf(adapters[0].get()).tier, fastest);
    held = nullptr;
    memory->Released();
    ASSERT_OK(Fetch(memory.get(), adapters[1]));
    EXPECT_EQ(memory->PlaceOf(adapters[0].get()).tier, fastest);
    // Where no others can.
    ASSERT_OK(memory->SetPinned(adapters[1], true));
    ASSERT_OK(Fetch(memory.get(), adapters[1]));
    ASSERT_OK(Fetch(memory.get(), adapters[2]));
    EXPECT_EQ(memory->PlaceOf(adapters[0].get()).tier,
              has_device ? MemoryTier::kHost : MemoryTier::kDisk);
  }
}

TEST_F(AdapterMemoryTest, OneWhoseFilesAreGoneIsNotEvictedInVain) {
  const auto memory = Make(3);
  const auto adapters = AddSome(memory.get(), 2);
  memory->SetGone(adapters[0]);
  ASSERT_OK(memory->SetPinned(adapters[1], true));
  auto large = MakeLoadedAdapter("toys", 3);
  large->memory_bytes = 3 * kBytes;
  memory->Add(large, std::make_shared<FakeTensors>(false), nullptr);
  EXPECT_THAT(Fetch(memory.get(), large), StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_EQ(memory->PlaceOf(adapters[0].get()).tier, MemoryTier::kHost);
}

TEST_F(AdapterMemoryTest, OneThatIsGoneFromDiskAndMemoryTakesNobodysRoom) {
  const auto memory = Make(1);
  const auto adapters = AddSome(memory.get(), 2);
  memory->SetGone(adapters[0]);
  EXPECT_THAT(Fetch(memory.get(), adapters[0]),
              StatusIs(absl::StatusCode::kNotFound,
                       HasSubstr("\"toys\" version 1 is gone from the folder")));
  EXPECT_THAT(source_.TakeWork(), IsEmpty());
  EXPECT_EQ(memory->PlaceOf(adapters[1].get()).tier, MemoryTier::kHost);
}

TEST_F(AdapterMemoryTest, PinningFetchesAndIsRefusedBeyondWhatThereIs) {
  const auto memory = Make(2);
  const auto adapters = AddSome(memory.get(), 3);
  ASSERT_OK(memory->SetPinned(adapters[0], true));
  ASSERT_OK(Fetch(memory.get(), adapters[0]));
  EXPECT_THAT(source_.TakeWork(), ElementsAre("read 1"));
  ASSERT_OK(memory->SetPinned(adapters[1], true));
  ASSERT_OK(Fetch(memory.get(), adapters[1]));
  EXPECT_THAT(memory->SetPinned(adapters[2], true),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       AllOf(HasSubstr("300 bytes"), HasSubstr("--adapter-memory allows 200"))));
  // And the rest find no room at all, which they are told.
  EXPECT_THAT(Fetch(memory.get(), adapters[2]),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("beside pinned adapters")));
}

TEST_F(AdapterMemoryTest, AFailureIsToldAndNotTriedAgainAtOnce) {
  const auto memory = Make(1);
  const auto adapters = AddSome(memory.get(), 2);
  source_.Fail(1, absl::UnavailableError("the folder is gone"));
  EXPECT_THAT(Fetch(memory.get(), adapters[0]),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("the folder is gone")));
  EXPECT_THAT(memory->Get(adapters[0]), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_EQ(memory->PlaceOf(adapters[0].get()).error, "the folder is gone");
  EXPECT_THAT(source_.TakeWork(), ElementsAre("read 1"));
  // What is in memory goes on.
  source_.Fail(1, absl::OkStatus());
  clock_.Advance(AdapterMemory::kRetryDelay);
  EXPECT_OK(Fetch(memory.get(), adapters[0]));
  EXPECT_EQ(memory->PlaceOf(adapters[0].get()).error, "");
  EXPECT_EQ(metrics_.values().fetch_failures, 1);
}

TEST_F(AdapterMemoryTest, FetchGivesUpAtItsDeadline) {
  const auto memory = Make(1);
  const auto adapters = AddSome(memory.get(), 2);
  source_.Block();
  EXPECT_THAT(memory->Fetch(adapters[0], clock_.Now()),
              StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("toys")));
  source_.Release();
}

TEST_F(AdapterMemoryTest, ADeviceIsFilledFromTheHostAndTheHostFromDisk) {
  const auto memory = Make(/*host=*/3, /*device=*/1);
  const auto adapters = AddSome(memory.get(), 4, /*on_device=*/true);
  EXPECT_THAT(Tiers(*memory, adapters), ElementsAre(MemoryTier::kDisk, MemoryTier::kHost,
                                                    MemoryTier::kHost, MemoryTier::kDevice));
  ASSERT_OK(Fetch(memory.get(), adapters[1]));
  EXPECT_THAT(source_.TakeWork(), ElementsAre("copy 2"));
  ASSERT_OK(Fetch(memory.get(), adapters[0]));
  EXPECT_THAT(source_.TakeWork(), ElementsAre("read 1", "copy 1"));
  // The host keeps those used last, of which the third is none.
  EXPECT_THAT(Tiers(*memory, adapters), ElementsAre(MemoryTier::kDevice, MemoryTier::kHost,
                                                    MemoryTier::kDisk, MemoryTier::kHost));
  EXPECT_EQ(MostBytes(MemoryTier::kHost), 3 * kBytes);
  EXPECT_EQ(MostBytes(MemoryTier::kDevice), kBytes);
  ASSERT_OK_AND_ASSIGN(const TensorsHandle tensors, memory->Get(adapters[0]));
  EXPECT_TRUE(static_cast<const FakeTensors&>(*tensors).on_device);
}

TEST_F(AdapterMemoryTest, RemovingAnAdapterSaysWhatItTook) {
  const auto memory = Make(/*host=*/2, /*device=*/1);
  const auto adapters = AddSome(memory.get(), 3, /*on_device=*/true);
  const TierBytes both = memory->Remove(adapters[2].get());
  EXPECT_EQ(both[static_cast<int>(MemoryTier::kHost)], kBytes);
  EXPECT_EQ(both[static_cast<int>(MemoryTier::kDevice)], kBytes);
  const TierBytes none = memory->Remove(adapters[0].get());
  EXPECT_EQ(none[static_cast<int>(MemoryTier::kHost)], 0);
  EXPECT_EQ(metrics_.values().memory_bytes[static_cast<int>(MemoryTier::kHost)], kBytes);
}

TEST_F(AdapterMemoryTest, AnAdapterRemovedWhileItIsFetchedIsForgotten) {
  const auto memory = Make(1);
  auto adapters = AddSome(memory.get(), 2);
  source_.Block();
  ASSERT_OK(memory->Get(adapters[0]));
  source_.WaitForWork(1);
  memory->Remove(adapters[0].get());
  adapters[0].reset();
  source_.Release();
  ASSERT_OK(Fetch(memory.get(), adapters[1]));
  EXPECT_THAT(Tiers(*memory, {adapters[1]}), ElementsAre(MemoryTier::kHost));
  EXPECT_EQ(metrics_.values().memory_bytes[static_cast<int>(MemoryTier::kHost)], kBytes);
}

TEST_F(AdapterMemoryTest, SaysWhatCanNeverFit) {
  const auto memory = Make(/*host=*/3, /*device=*/2);
  EXPECT_THAT(memory->CheckFits(2 * kBytes), IsOk());
  EXPECT_THAT(memory->CheckFits(2 * kBytes + 1),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("--adapter-device-memory allows 200")));
  EXPECT_THAT(memory->CheckFits(4 * kBytes), StatusIs(absl::StatusCode::kResourceExhausted,
                                                      HasSubstr("--adapter-memory allows 300")));
  EXPECT_THAT(AdapterMemoryOptions{.host_bytes = 0}.Validate(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("--adapter-memory")));
  EXPECT_THAT(AdapterMemoryOptions{.device_bytes = 0}.Validate(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("--adapter-device-memory")));
}

TEST_F(AdapterMemoryTest, StoppingEndsWhatWaits) {
  const auto memory = Make(1);
  const auto adapters = AddSome(memory.get(), 2);
  ASSERT_OK_AND_ASSIGN(const TensorsHandle held, memory->Get(adapters[1]));
  ASSERT_OK(memory->Get(adapters[0]));
  EXPECT_TRUE(memory->Stop());
  EXPECT_THAT(memory->Get(adapters[0]), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(Fetch(memory.get(), adapters[0]), StatusIs(absl::StatusCode::kUnavailable));
}

TEST_F(AdapterMemoryTest, StoppingWaitsForAReadNoLongerThanItsDeadline) {
  const auto memory = Make(1);
  const auto adapters = AddSome(memory.get(), 2);
  source_.Block();
  ASSERT_OK(memory->Get(adapters[0]));
  source_.WaitForWork(1);
  EXPECT_FALSE(memory->Stop(clock_.Now()));
  source_.Release();
  EXPECT_TRUE(memory->Stop());
}

}  // namespace
}  // namespace pricer
