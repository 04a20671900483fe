#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>

#include "server/adapter_memory.h"
#include "server/batch_scheduler.h"
#include "tests/server/fakes.h"
#include "tests/testing/status_matchers.h"

// The batch scheduler over an adapter memory that has room for two of three adapters.

namespace pricer {
namespace {

using ::testing::ElementsAre;
using testing::FakeClock;
using testing::FakePredictor;
using testing::FakeTensors;
using ::testing::HasSubstr;
using testing::MakeLoadedAdapter;
using testing::RecordingMetrics;
using testing::Results;
using testing::StatusIs;

class BatchSchedulerMemoryTest : public ::testing::Test {
 protected:
  BatchSchedulerMemoryTest() {
    // The first is on disk then; its fetch evicts the second.
    for (const AdapterHandle& adapter : {cold_, other_, hot_}) {
      memory_.Add(adapter, std::make_shared<FakeTensors>(false), nullptr);
    }
  }
  ~BatchSchedulerMemoryTest() override { predictor_.Release(); }

  absl::StatusOr<TensorsHandle> Read() {
    MutexLock lock(&mutex_);
    while (blocked_) changed_.Wait(&mutex_);
    if (!failure_.ok()) return failure_;
    return std::make_shared<FakeTensors>(false);
  }
  void SetReads(bool blocked, const absl::Status& failure = absl::OkStatus()) {
    MutexLock lock(&mutex_);
    blocked_ = blocked;
    failure_ = failure;
    changed_.SignalAll();
  }
  PriceTask Task(const AdapterHandle& adapter, const AdapterHandle& shadow = nullptr) {
    PriceTask task;
    task.ids = {1, 2};
    task.adapter = adapter;
    if (shadow != nullptr) {
      task.shadow = {.ids = {1}, .adapter = shadow, .tensors = nullptr, .extra_rows = 0};
    }
    task.done = results_.Add();
    return task;
  }
  static std::shared_ptr<LoadedAdapter> Sized(const std::string& name) {
    auto adapter = MakeLoadedAdapter(name, 1);
    adapter->memory_bytes = 100;
    return adapter;
  }

  Mutex mutex_;
  CondVar changed_;
  bool blocked_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);
  const AdapterHandle cold_ = Sized("cold");
  const AdapterHandle other_ = Sized("other");
  const AdapterHandle hot_ = Sized("hot");
  FakeClock clock_;
  FakePredictor predictor_;
  RecordingMetrics metrics_;
  Results results_;
  AdapterMemory memory_{
      {.host_bytes = 200},
      {.read = [this](const LoadedAdapter&) { return Read(); }, .copy_to_device = nullptr},
      &metrics_,
      &clock_};
  BatchScheduler scheduler_{{.max_batch_tokens = 100, .max_queue_tokens = 1000},
                            &predictor_,
                            &metrics_,
                            &clock_,
                            &memory_};
};

TEST_F(BatchSchedulerMemoryTest, ATaskOfAnAdapterOnDiskWaitsUntilItIsThere) {
  SetReads(/*blocked=*/true);
  ASSERT_OK(scheduler_.Schedule(Task(cold_)));
  ASSERT_OK(scheduler_.Schedule(Task(hot_)));
  ASSERT_OK(results_.Wait(1).distribution);
  EXPECT_FALSE(results_.IsDone(0));
  SetReads(/*blocked=*/false);
  ASSERT_OK(results_.Wait(0).distribution);
  for (const auto& batch : predictor_.batches()) EXPECT_TRUE(batch[0].has_tensors);
  EXPECT_EQ(metrics_.values().queue_items, 0);
}

TEST_F(BatchSchedulerMemoryTest, AdaptersTakeTurnsWhereNotAllFit) {
  constexpr int kTasks = 60;
  const AdapterHandle adapters[] = {cold_, other_, hot_};
  for (int i = 0; i < kTasks; ++i) {
    ASSERT_OK(scheduler_.Schedule(Task(adapters[i % 3])));
  }
  for (int i = 0; i < kTasks; ++i) ASSERT_OK(results_.Wait(i).distribution);
  EXPECT_EQ(metrics_.values().most_memory_bytes[static_cast<int>(MemoryTier::kHost)], 200);
}

TEST_F(BatchSchedulerMemoryTest, AFetchThatFailsFailsItsTasksAlone) {
  SetReads(/*blocked=*/true);
  ASSERT_OK(scheduler_.Schedule(Task(cold_)));
  SetReads(/*blocked=*/false, absl::DataLossError("another digest"));
  EXPECT_THAT(results_.Wait(0).distribution,
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("another digest")));
  // Refused at the door, until it may be tried again.
  PriceTask refused = Task(cold_);
  EXPECT_THAT(scheduler_.Schedule(std::move(refused)), StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_EQ(metrics_.values().refused[static_cast<int>(RefusalReason::kAdapter)], 1);
  SetReads(/*blocked=*/false);
  clock_.Advance(AdapterMemory::kRetryDelay);
  ASSERT_OK(scheduler_.Schedule(Task(cold_)));
  EXPECT_OK(results_.Wait(2).distribution);
}

TEST_F(BatchSchedulerMemoryTest, AShadowOnDiskKeepsItsTaskFromNothing) {
  SetReads(/*blocked=*/true);
  ASSERT_OK(scheduler_.Schedule(Task(hot_, /*shadow=*/cold_)));
  ASSERT_OK(results_.Wait(0).distribution);
  EXPECT_EQ(predictor_.batches()[0].size(), 1u);
  EXPECT_EQ(metrics_.values().shadow_failures, 1);
  SetReads(/*blocked=*/false);
}

TEST_F(BatchSchedulerMemoryTest, TasksThatBringTensorsWaitForNothing) {
  SetReads(/*blocked=*/true);
  PriceTask task = Task(Sized("candidate"));
  task.tensors = std::make_shared<FakeTensors>(false);
  ASSERT_OK(scheduler_.Schedule(std::move(task)));
  EXPECT_OK(results_.Wait(0).distribution);
  SetReads(/*blocked=*/false);
}

TEST_F(BatchSchedulerMemoryTest, ATaskWhoseCallerHasGoneDoesNotWaitForAFetchThatHangs) {
  SetReads(/*blocked=*/true);
  PriceTask task = Task(cold_);
  const auto cancelled = std::make_shared<std::atomic<bool>>(false);
  task.cancelled = cancelled;
  ASSERT_OK(scheduler_.Schedule(std::move(task)));
  cancelled->store(true);
  EXPECT_THAT(results_.Wait(0).distribution, StatusIs(absl::StatusCode::kCancelled));
  EXPECT_EQ(metrics_.values().queue_items, 0);
  SetReads(/*blocked=*/false);
}

TEST_F(BatchSchedulerMemoryTest, StopFailsWhatWaitsForItsAdapter) {
  SetReads(/*blocked=*/true);
  ASSERT_OK(scheduler_.Schedule(Task(cold_)));
  scheduler_.Stop(absl::InfiniteFuture());
  EXPECT_THAT(results_.Wait(0).distribution, StatusIs(absl::StatusCode::kUnavailable));
  SetReads(/*blocked=*/false);
}

}  // namespace
}  // namespace pricer
