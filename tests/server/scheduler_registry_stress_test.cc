// Requests, a batch loop and adapters that come and go, all at once; for the thread sanitizer above
// all.

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "server/adapter_memory.h"
#include "server/adapter_registry.h"
#include "server/batch_scheduler.h"
#include "server/price_cache.h"
#include "tests/server/fakes.h"
#include "tests/testing/status_matchers.h"

namespace pricer {
namespace {

using testing::FakeDistribution;
using testing::FakeTensors;
using testing::MakeLoadedAdapter;
using testing::RecordingMetrics;

constexpr int kCallers = 4;
constexpr int kTasksPerCaller = 3000;
constexpr int kNames = 12;

// Prices without remembering anything.
class QuickPredictor final : public BatchPredictor {
 public:
  Results PredictBatch(absl::Span<const PredictorSequence> sequences) override {
    Results results;
    for (const PredictorSequence& sequence : sequences) {
      results.push_back(FakeDistribution(*sequence.adapter));
    }
    return results;
  }
};

// What every caller counts.
struct Counts {
  std::atomic<int> priced{0};
  std::atomic<int> wrong{0};
  std::atomic<int> dropped{0};
  std::atomic<int> refused{0};
};

// Right is what this version prices.
std::function<void(TaskResult)> CountInto(Counts* counts, const LoadedAdapter& adapter) {
  return [counts, expected = FakeDistribution(adapter).min_price()](const TaskResult& result) {
    if (!result.distribution.ok()) {
      ++counts->dropped;
    } else if (result.distribution->min_price() == expected) {
      ++counts->priced;
    } else {
      ++counts->wrong;
    }
  };
}

// Every other item comes through the cache, where callers ask for the same few.
void CallInALoop(const AdapterRegistry& registry, const std::string& caller,
                 BatchScheduler* scheduler, PriceCache* cache, Counts* counts) {
  for (int i = 0; i < kTasksPerCaller; ++i) {
    const absl::StatusOr<AdapterHandle> adapter = registry.Find("toys", std::nullopt);
    ASSERT_OK(adapter);
    PriceTask task;
    task.ids.assign(1 + i % 50, i);
    task.adapter = *adapter;
    task.caller = caller;
    task.lane = i % 3 == 0 ? Lane::kBulk : Lane::kOnline;
    task.deadline = Clock::System()->Now() + absl::Milliseconds(1 + i % 1000);
    // Every tenth caller has gone before its task is looked at.
    task.cancelled = std::make_shared<std::atomic<bool>>(i % 10 == 0);
    task.done = CountInto(counts, **adapter);
    if (i % 2 == 0) {
      if (!scheduler->Schedule(std::move(task)).ok()) ++counts->refused;
      continue;
    }
    const PriceCache::Key key = PriceCache::KeyOf(**adapter, std::to_string(i / 20));
    PriceCache::Asker asker{
        .lane = task.lane,
        .deadline = task.deadline,
        .cancelled = task.cancelled,
        .done = [done = task.done](const PriceCache::Outcome& outcome) { done(outcome.result); }};
    const PriceCache::Found found = cache->FindOrJoin(key, /*may_be_kept=*/true, &asker);
    if (found.joined) continue;
    if (found.priced.has_value()) {
      task.done({found.priced->distribution, absl::ZeroDuration(), absl::ZeroDuration()});
      continue;
    }
    if (!cache->ScheduleOrJoin(key, std::move(task), {}, std::move(asker)).ok()) ++counts->refused;
  }
}

void SwapVersionsInALoop(AdapterRegistry* registry, const std::atomic<bool>& stop) {
  for (int64_t version = 2; !stop; ++version) {
    registry->Discover({"toys", version});
    registry->BeginLoad({"toys", version});
    registry->Publish(MakeLoadedAdapter("toys", version), absl::ZeroDuration());
    registry->Unload({"toys", version - 1}, "removed from the adapter folder");
    registry->FreeUnused();
    std::this_thread::yield();
  }
}

TEST(SchedulerRegistryStressTest, EveryTaskIsAnsweredOnceByTheVersionItBeganWith) {
  RecordingMetrics metrics;
  AdapterRegistry registry("", &metrics, Clock::System());
  registry.Discover({"toys", 1});
  registry.Publish(MakeLoadedAdapter("toys", 1), absl::ZeroDuration());
  QuickPredictor predictor;
  BatchScheduler scheduler({.max_batch_tokens = 256, .max_queue_tokens = 4096}, &predictor,
                           &metrics, Clock::System());

  PriceCache cache(1 << 16, &scheduler, &metrics, Clock::System());
  Counts counts;
  std::atomic<bool> stop{false};
  std::thread swapper([&] { SwapVersionsInALoop(&registry, stop); });
  std::vector<std::thread> callers;
  for (int i = 0; i < kCallers; ++i) {
    callers.emplace_back([&, name = std::to_string(i)] {
      CallInALoop(registry, name, &scheduler, &cache, &counts);
    });
  }
  for (std::thread& caller : callers) caller.join();
  stop = true;
  swapper.join();
  scheduler.Stop(absl::InfiniteFuture());

  EXPECT_EQ(counts.wrong, 0);
  EXPECT_GT(counts.priced, 0);
  EXPECT_GT(counts.dropped, 0);
  EXPECT_EQ(counts.priced + counts.dropped + counts.refused, kCallers * kTasksPerCaller);
  EXPECT_GT(metrics.values().cache_hits, 0);
  EXPECT_EQ(metrics.values().queue_items, 0);
  registry.FreeUnused();
  EXPECT_EQ(metrics.values().adapters[static_cast<int>(AdapterState::kUnloading)], 0);
  EXPECT_EQ(metrics.values().adapters[static_cast<int>(AdapterState::kAvailable)], 1);
}

// Of one adapter after the other, whatever version answers.
void AskForAll(const AdapterRegistry& registry, int first, BatchScheduler* scheduler,
               Counts* counts) {
  for (int i = 0; i < kTasksPerCaller; ++i) {
    const std::string name = std::to_string((first + 5 * i) % kNames);
    const absl::StatusOr<AdapterHandle> adapter = registry.Find(name, std::nullopt);
    ASSERT_OK(adapter);
    PriceTask task;
    task.ids.assign(1 + i % 50, i);
    task.adapter = *adapter;
    task.caller = std::to_string(first);
    task.cancelled = std::make_shared<std::atomic<bool>>(i % 10 == 0);
    task.done = CountInto(counts, **adapter);
    // A task that is refused is as it was.
    while (!scheduler->Schedule(std::move(task)).ok()) {  // NOLINT(bugprone-use-after-move)
      std::this_thread::yield();
    }
  }
}

void PublishVersion(AdapterRegistry* registry, AdapterMemory* memory, int name, int64_t version) {
  const std::shared_ptr<LoadedAdapter> adapter = MakeLoadedAdapter(std::to_string(name), version);
  adapter->memory_bytes = 1;
  memory->Add(adapter, std::make_shared<FakeTensors>(false), nullptr);
  registry->Discover(adapter->key);
  registry->Publish(adapter, absl::ZeroDuration());
}

TEST(SchedulerRegistryStressTest, AdaptersThatComeAndGoInMemoryForAFewAreAllServed) {
  constexpr int64_t kInMemory = 3;
  RecordingMetrics metrics;
  AdapterMemory memory({.host_bytes = kInMemory},
                       {.read = [](const LoadedAdapter&) -> absl::StatusOr<TensorsHandle> {
                          return std::make_shared<FakeTensors>(false);
                        },
                        .copy_to_device = nullptr},
                       &metrics, Clock::System());
  AdapterRegistry registry("", &metrics, Clock::System());
  registry.SetMemory(&memory);
  for (int name = 0; name < kNames; ++name) PublishVersion(&registry, &memory, name, 1);
  QuickPredictor predictor;
  BatchScheduler scheduler({.max_batch_tokens = 256, .max_queue_tokens = 4096}, &predictor,
                           &metrics, Clock::System(), &memory);
  Counts counts;
  std::atomic<bool> stop{false};
  std::thread swapper([&] {
    for (int i = 0; !stop; ++i) {
      const int64_t version = 2 + i / kNames;
      PublishVersion(&registry, &memory, i % kNames, version);
      registry.Unload({std::to_string(i % kNames), version - 1}, "swapped");
      registry.FreeUnused();
      std::this_thread::yield();
    }
  });
  std::vector<std::thread> callers;
  for (int i = 0; i < kCallers; ++i) {
    callers.emplace_back([&, i] { AskForAll(registry, i, &scheduler, &counts); });
  }
  for (std::thread& caller : callers) caller.join();
  while (counts.priced + counts.dropped + counts.wrong < kCallers * kTasksPerCaller) {
    std::this_thread::yield();
  }
  stop = true;
  swapper.join();
  scheduler.Stop(absl::InfiniteFuture());

  EXPECT_EQ(counts.wrong, 0);
  EXPECT_GE(counts.priced, kCallers * kTasksPerCaller * 8 / 10);
  EXPECT_LE(counts.dropped, kCallers * kTasksPerCaller / 10);
  EXPECT_LE(metrics.values().most_memory_bytes[static_cast<int>(MemoryTier::kHost)], kInMemory);
  EXPECT_GT(metrics.values().fetched_from[static_cast<int>(MemoryTier::kDisk)], 0);
  EXPECT_EQ(metrics.values().queue_items, 0);
  registry.FreeUnused();
  EXPECT_EQ(metrics.values().adapters[static_cast<int>(AdapterState::kUnloading)], 0);
}

}  // namespace
}  // namespace pricer
