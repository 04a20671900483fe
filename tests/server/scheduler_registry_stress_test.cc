// Requests, a batch loop and adapters that come and go, all at once; for the thread sanitizer above
// all.

#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "server/adapter_registry.h"
#include "server/batch_scheduler.h"
#include "server/price_cache.h"
#include "tests/server/fakes.h"
#include "tests/testing/status_matchers.h"

namespace pricer {
namespace {

using testing::FakeDistribution;
using testing::MakeLoadedAdapter;
using testing::RecordingMetrics;

constexpr int kCallers = 4;
constexpr int kTasksPerCaller = 3000;

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
    task.done = [counts, expected = FakeDistribution(**adapter).min_price()](TaskResult result) {
      if (!result.distribution.ok()) {
        ++counts->dropped;
      } else if (result.distribution->min_price() == expected) {
        ++counts->priced;
      } else {
        ++counts->wrong;
      }
    };
    if (i % 2 == 0) {
      if (!scheduler->Schedule(std::move(task)).ok()) ++counts->refused;
      continue;
    }
    const PriceCache::Key key = PriceCache::KeyOf(**adapter, std::to_string(i / 20));
    if (const auto known = cache->Find(key)) {
      task.done({known->distribution, absl::ZeroDuration(), absl::ZeroDuration()});
      continue;
    }
    PriceCache::Asker asker{
        .lane = task.lane,
        .deadline = task.deadline,
        .cancelled = task.cancelled,
        .done = [done = task.done](const PriceCache::Outcome& outcome) { done(outcome.result); }};
    if (!cache->ScheduleOrJoin(key, std::move(task), {}, std::move(asker)).ok()) ++counts->refused;
  }
}

void SwapVersionsInALoop(AdapterRegistry* registry, const std::atomic<bool>& stop) {
  for (int64_t version = 2; !stop; ++version) {
    registry->Discover({"toys", version});
    registry->BeginLoad({"toys", version});
    registry->Publish(MakeLoadedAdapter("toys", version), absl::ZeroDuration());
    registry->Unload({"toys", version - 1});
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

}  // namespace
}  // namespace pricer
