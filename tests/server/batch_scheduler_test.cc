#include "server/batch_scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/server/fakes.h"
#include "tests/testing/status_matchers.h"

namespace pricer {
namespace {

using ::testing::ElementsAre;
using testing::FakeClock;
using testing::FakeDistribution;
using testing::FakePredictor;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::IsOk;
using testing::MakeLoadedAdapter;
using testing::RecordingMetrics;
using testing::Results;
using testing::StatusIs;

class BatchSchedulerTest : public ::testing::Test {
 protected:
  void Start(int64_t max_batch_tokens, int64_t max_queue_tokens) {
    scheduler_ = std::make_unique<BatchScheduler>(
        BatchSchedulerOptions{.max_batch_tokens = max_batch_tokens,
                              .max_queue_tokens = max_queue_tokens},
        &predictor_, &metrics_, &clock_);
  }
  // Ends the thread before what it uses goes.
  void TearDown() override {
    predictor_.Release();
    scheduler_.reset();
  }

  PriceTask Task(int tokens, int32_t first_token = 1) {
    PriceTask task;
    task.ids.assign(tokens, 0);
    task.ids[0] = first_token;
    task.adapter = adapter_;
    task.done = results_.Add();
    return task;
  }
  absl::Status Schedule(int tokens, int32_t first_token = 1) {
    return scheduler_->Schedule(Task(tokens, first_token));
  }
  // Makes the predictor busy with one task until Release.
  void OccupyPredictor() {
    predictor_.Block();
    ASSERT_OK(Schedule(1, 0));
    predictor_.WaitForBatches(1);
  }
  // First tokens of all batches after the first.
  std::vector<std::vector<int32_t>> LaterBatches() const {
    std::vector<std::vector<int32_t>> batches;
    for (const FakePredictor::Batch& batch : predictor_.batches()) {
      batches.emplace_back();
      for (const FakePredictor::Sequence& sequence : batch) {
        batches.back().push_back(sequence.ids[0]);
      }
    }
    batches.erase(batches.begin());
    return batches;
  }

  FakeClock clock_;
  FakePredictor predictor_;
  RecordingMetrics metrics_;
  Results results_;
  AdapterHandle adapter_ = MakeLoadedAdapter("toys", 3);
  std::unique_ptr<BatchScheduler> scheduler_;
};

TEST_F(BatchSchedulerTest, ComputesATaskWithoutWaitingForOthers) {
  Start(1000, 1000);
  ASSERT_OK(Schedule(10));
  const TaskResult& result = results_.Wait(0);
  ASSERT_OK(result.distribution);
  EXPECT_EQ(result.distribution->min_price(), FakeDistribution(*adapter_).min_price());
}

TEST_F(BatchSchedulerTest, PacksWaitingTasksInTheOrderOfArrivalUpToTheTokenBudget) {
  Start(100, 1000);
  OccupyPredictor();
  for (int32_t i = 1; i <= 4; ++i) ASSERT_OK(Schedule(40, i));
  ASSERT_OK(Schedule(20, 5));
  predictor_.Release();
  for (int i = 0; i <= 5; ++i) results_.Wait(i);
  EXPECT_THAT(LaterBatches(), ElementsAre(ElementsAre(1, 2), ElementsAre(3, 4, 5)));
}

TEST_F(BatchSchedulerTest, ComputesATaskLongerThanABatchAlone) {
  Start(100, 1000);
  OccupyPredictor();
  ASSERT_OK(Schedule(10, 1));
  ASSERT_OK(Schedule(150, 2));
  ASSERT_OK(Schedule(10, 3));
  predictor_.Release();
  for (int i = 0; i <= 3; ++i) ASSERT_OK(results_.Wait(i).distribution);
  EXPECT_THAT(LaterBatches(), ElementsAre(ElementsAre(1), ElementsAre(2), ElementsAre(3)));
}

TEST_F(BatchSchedulerTest, RowsBesideThePromptCountAsTokens) {
  Start(100, 200);
  OccupyPredictor();
  for (int32_t i = 1; i <= 4; ++i) {
    PriceTask task = Task(10, i);
    task.extra_rows = 35;
    ASSERT_OK(scheduler_->Schedule(std::move(task)));
  }
  EXPECT_EQ(metrics_.values().queue_tokens, 180);
  PriceTask more = Task(10, 5);
  more.extra_rows = 11;
  EXPECT_THAT(scheduler_->Schedule(std::move(more)),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("180 of 200 tokens")));
  predictor_.Release();
  for (int i = 0; i <= 4; ++i) results_.Wait(i);
  EXPECT_THAT(LaterBatches(), ElementsAre(ElementsAre(1, 2), ElementsAre(3, 4)));
  EXPECT_EQ(metrics_.values().queue_tokens, 0);
}

TEST_F(BatchSchedulerTest, PutsSequencesOfOneAdapterTogetherInABatch) {
  Start(100, 1000);
  OccupyPredictor();
  const AdapterHandle other = MakeLoadedAdapter("wine", 1);
  for (int32_t i = 1; i <= 6; ++i) {
    PriceTask task = Task(5, i);
    if (i % 2 == 0) task.adapter = other;
    ASSERT_OK(scheduler_->Schedule(std::move(task)));
  }
  predictor_.Release();
  for (int i = 0; i <= 6; ++i) results_.Wait(i);
  const FakePredictor::Batch batch = predictor_.batches()[1];
  ASSERT_EQ(batch.size(), 6u);
  for (int i = 0; i < 6; ++i) EXPECT_EQ(batch[i].adapter, batch[i / 3 * 3].adapter) << i;
  // Each caller got its own adapter's price all the same.
  for (int i = 1; i <= 6; ++i) {
    EXPECT_EQ(results_.Wait(i).distribution->min_price(),
              FakeDistribution(i % 2 == 0 ? *other : *adapter_).min_price());
  }
}

TEST_F(BatchSchedulerTest, RefusesAtOnceWhatTheQueueHasNoRoomFor) {
  Start(50, 100);
  OccupyPredictor();
  ASSERT_OK(Schedule(60, 1));
  EXPECT_THAT(Schedule(41, 2),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("60 of 100 tokens")));
  EXPECT_THAT(Schedule(40, 3), IsOk());
  EXPECT_EQ(metrics_.values().refused[static_cast<int>(RefusalReason::kQueueFull)], 1);
  EXPECT_EQ(metrics_.values().queue_tokens, 100);
  EXPECT_EQ(metrics_.values().queue_items, 2);
  predictor_.Release();
  results_.Wait(1);
  results_.Wait(3);
  EXPECT_FALSE(results_.IsDone(2));
  EXPECT_EQ(metrics_.values().queue_tokens, 0);
}

TEST_F(BatchSchedulerTest, TakesAPromptLongerThanTheQueueWhenNothingWaits) {
  Start(50, 100);
  OccupyPredictor();
  EXPECT_THAT(Schedule(500, 1), IsOk());
  EXPECT_THAT(Schedule(1, 2), StatusIs(absl::StatusCode::kResourceExhausted));
}

TEST_F(BatchSchedulerTest, TakesATaskThatReplacesOneOfItsCallThoughTheQueueIsFull) {
  Start(50, 100);
  OccupyPredictor();
  ASSERT_OK(Schedule(60, 1));
  const std::string caller;
  EXPECT_TRUE(scheduler_->HasRoom({.caller = caller, .tokens = 40}));
  EXPECT_FALSE(scheduler_->HasRoom({.caller = caller, .tokens = 41}));
  EXPECT_OK(scheduler_->Check({.caller = caller, .tokens = 40}));
  EXPECT_THAT(scheduler_->Check({.caller = caller, .tokens = 41}),
              StatusIs(absl::StatusCode::kResourceExhausted));
  PriceTask task = Task(41, 2);
  EXPECT_THAT(scheduler_->Schedule(std::move(task)),
              StatusIs(absl::StatusCode::kResourceExhausted));
  // A task that is refused is as it was.
  task.replaces = true;  // NOLINT(bugprone-use-after-move)
  EXPECT_OK(scheduler_->Schedule(std::move(task)));
  predictor_.Release();
  for (int i = 0; i <= 2; ++i) EXPECT_OK(results_.Wait(i).distribution);
  EXPECT_THAT(LaterBatches(), ElementsAre(ElementsAre(1), ElementsAre(2)));
}

TEST_F(BatchSchedulerTest, TakesInternalTasksThoughTheQueueIsFull) {
  Start(50, 100);
  OccupyPredictor();
  ASSERT_OK(Schedule(100, 1));
  PriceTask task = Task(10, 2);
  task.internal = true;
  EXPECT_OK(scheduler_->Schedule(std::move(task)));
  predictor_.Release();
  EXPECT_OK(results_.Wait(2).distribution);
  scheduler_->Stop(absl::InfiniteFuture());
  // The first task and the one that filled the queue.
  EXPECT_EQ(metrics_.values().items.at(adapter_->key), 2);
}

TEST_F(BatchSchedulerTest, PutsInternalTasksAheadOfThoseThatWait) {
  Start(50, 100);
  OccupyPredictor();
  ASSERT_OK(Schedule(50, 1));
  ASSERT_OK(Schedule(50, 2));
  PriceTask task = Task(10, 3);
  task.internal = true;
  ASSERT_OK(scheduler_->Schedule(std::move(task)));
  predictor_.Release();
  for (int i = 0; i <= 3; ++i) results_.Wait(i);
  EXPECT_THAT(LaterBatches(), ElementsAre(ElementsAre(3), ElementsAre(1), ElementsAre(2)));
}

TEST_F(BatchSchedulerTest, RefusesATaskWhoseDeadlineHasPassed) {
  Start(100, 100);
  PriceTask task = Task(10);
  task.deadline = clock_.Now();
  EXPECT_THAT(scheduler_->Schedule(std::move(task)), StatusIs(absl::StatusCode::kDeadlineExceeded));
  EXPECT_THAT(predictor_.batches(), IsEmpty());
}

TEST_F(BatchSchedulerTest, NeverComputesATaskThatExpiredWhileItWaited) {
  Start(100, 100);
  OccupyPredictor();
  PriceTask expiring = Task(10, 1);
  expiring.deadline = clock_.Now() + absl::Seconds(5);
  ASSERT_OK(scheduler_->Schedule(std::move(expiring)));
  PriceTask patient = Task(10, 2);
  patient.deadline = clock_.Now() + absl::Seconds(6);
  ASSERT_OK(scheduler_->Schedule(std::move(patient)));
  clock_.Advance(absl::Seconds(5));
  predictor_.Release();
  EXPECT_THAT(results_.Wait(1).distribution, StatusIs(absl::StatusCode::kDeadlineExceeded));
  EXPECT_EQ(results_.Wait(1).compute_time, absl::ZeroDuration());
  EXPECT_OK(results_.Wait(2).distribution);
  EXPECT_THAT(LaterBatches(), ElementsAre(ElementsAre(2)));
}

TEST_F(BatchSchedulerTest, NeverComputesATaskWhoseCallerHasGone) {
  Start(100, 100);
  OccupyPredictor();
  const auto cancelled = std::make_shared<std::atomic<bool>>(false);
  PriceTask task = Task(10, 1);
  task.cancelled = cancelled;
  ASSERT_OK(scheduler_->Schedule(std::move(task)));
  cancelled->store(true);
  predictor_.Release();
  EXPECT_THAT(results_.Wait(1).distribution, StatusIs(absl::StatusCode::kCancelled));
  scheduler_->Stop(absl::InfiniteFuture());
  EXPECT_THAT(LaterBatches(), IsEmpty());
}

// gRPC cancels a call at its deadline, so that both are true of it.
TEST_F(BatchSchedulerTest, ATaskThatIsBothExpiredAndCancelledIsExpired) {
  Start(100, 100);
  OccupyPredictor();
  const auto cancelled = std::make_shared<std::atomic<bool>>(false);
  PriceTask task = Task(10, 1);
  task.cancelled = cancelled;
  task.deadline = clock_.Now() + absl::Seconds(1);
  ASSERT_OK(scheduler_->Schedule(std::move(task)));
  clock_.Advance(absl::Seconds(1));
  cancelled->store(true);
  predictor_.Release();
  EXPECT_THAT(results_.Wait(1).distribution, StatusIs(absl::StatusCode::kDeadlineExceeded));
}

TEST_F(BatchSchedulerTest, DroppedTasksTakeNoRoomInABatch) {
  Start(100, 1000);
  OccupyPredictor();
  PriceTask task = Task(90, 1);
  task.cancelled = std::make_shared<std::atomic<bool>>(true);
  ASSERT_OK(scheduler_->Schedule(std::move(task)));
  ASSERT_OK(Schedule(50, 2));
  ASSERT_OK(Schedule(50, 3));
  predictor_.Release();
  results_.Wait(3);
  EXPECT_THAT(LaterBatches(), ElementsAre(ElementsAre(2, 3)));
}

TEST_F(BatchSchedulerTest, AFailedSequenceFailsAlone) {
  Start(100, 100);
  predictor_.FailOn(2, absl::InvalidArgumentError("not finite"));
  OccupyPredictor();
  ASSERT_OK(Schedule(10, 1));
  ASSERT_OK(Schedule(10, 2));
  predictor_.Release();
  EXPECT_OK(results_.Wait(1).distribution);
  EXPECT_THAT(results_.Wait(2).distribution,
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("not finite")));
  scheduler_->Stop(absl::InfiniteFuture());
  EXPECT_EQ(metrics_.values().items.at(adapter_->key), 2);
}

TEST_F(BatchSchedulerTest, TellsTimeInTheQueueAndInTheBatch) {
  predictor_.TakeTime(&clock_, absl::Seconds(2));
  Start(100, 100);
  OccupyPredictor();
  ASSERT_OK(Schedule(10));
  clock_.Advance(absl::Seconds(1));
  predictor_.Release();
  const TaskResult& result = results_.Wait(1);
  // One second of waiting and two of the batch before.
  EXPECT_EQ(result.queue_time, absl::Seconds(3));
  EXPECT_EQ(result.compute_time, absl::Seconds(2));
  scheduler_->Stop(absl::InfiniteFuture());
  EXPECT_THAT(metrics_.values().queue_times, ElementsAre(absl::ZeroDuration(), absl::Seconds(3)));
  EXPECT_THAT(metrics_.values().batch_items, ElementsAre(1, 1));
  EXPECT_EQ(metrics_.values().tokens, 11);
}

TEST_F(BatchSchedulerTest, ComputesTheNextBatchWhileAnswersAreGiven) {
  predictor_.TakeTime(&clock_, absl::Milliseconds(1));
  Start(10, 100);
  OccupyPredictor();
  PriceTask task = Task(10);
  task.done = [this](const TaskResult& /*result*/) { predictor_.WaitForBatches(3); };
  ASSERT_OK(scheduler_->Schedule(std::move(task)));
  ASSERT_OK(Schedule(10));
  predictor_.Release();
  EXPECT_OK(results_.Wait(2).distribution);
}

TEST_F(BatchSchedulerTest, TellsHowLongThePredictorWasFreeThoughTasksWaited) {
  Start(10, 100);
  OccupyPredictor();
  PriceTask task = Task(10);
  // On the batch thread, since the batch took no time.
  task.done = [this, done = std::move(task.done)](TaskResult result) {
    clock_.Advance(absl::Milliseconds(5));
    done(std::move(result));
  };
  ASSERT_OK(scheduler_->Schedule(std::move(task)));
  ASSERT_OK(Schedule(10));
  predictor_.Release();
  results_.Wait(2);
  // To an idle predictor.
  clock_.Advance(absl::Seconds(1));
  ASSERT_OK(Schedule(10));
  scheduler_->Stop(absl::InfiniteFuture());
  EXPECT_THAT(metrics_.values().batch_gaps,
              ElementsAre(absl::ZeroDuration(), absl::ZeroDuration(), absl::Milliseconds(5),
                          absl::ZeroDuration()));
}

TEST_F(BatchSchedulerTest, HoldsNoAdapterWhenDoneIsCalled) {
  Start(100, 100);
  std::weak_ptr<const LoadedAdapter> watched;
  {
    const AdapterHandle adapter = MakeLoadedAdapter("short-lived", 1);
    watched = adapter;
    PriceTask task = Task(10);
    task.adapter = adapter;
    ASSERT_OK(scheduler_->Schedule(std::move(task)));
  }
  results_.Wait(0);
  EXPECT_TRUE(watched.expired());
}

TEST_F(BatchSchedulerTest, StopComputesWhatWaits) {
  Start(10, 100);
  OccupyPredictor();
  for (int32_t i = 1; i <= 3; ++i) ASSERT_OK(Schedule(10, i));
  predictor_.Release();
  scheduler_->Stop(absl::InfiniteFuture());
  for (int i = 0; i <= 3; ++i) {
    ASSERT_TRUE(results_.IsDone(i)) << i;
    EXPECT_OK(results_.Wait(i).distribution);
  }
}

TEST_F(BatchSchedulerTest, StopFailsWhatWaitsWhenTheDeadlineHasPassed) {
  Start(10, 100);
  OccupyPredictor();
  for (int32_t i = 1; i <= 3; ++i) ASSERT_OK(Schedule(10, i));
  std::thread stopper([this] { scheduler_->Stop(clock_.Now()); });
  // From then on the deadline is set.
  while (!absl::IsUnavailable(Schedule(1, 9))) std::this_thread::yield();
  predictor_.Release();
  stopper.join();
  EXPECT_OK(results_.Wait(0).distribution);
  for (int i = 1; i <= 3; ++i) {
    EXPECT_THAT(results_.Wait(i).distribution, StatusIs(absl::StatusCode::kUnavailable));
  }
  EXPECT_THAT(LaterBatches(), IsEmpty());
}

TEST_F(BatchSchedulerTest, RefusesTasksAfterStop) {
  Start(10, 100);
  scheduler_->Stop(absl::InfiniteFuture());
  EXPECT_THAT(Schedule(1), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("stopping")));
}

TEST_F(BatchSchedulerTest, CallsDoneOnceForEveryTask) {
  Start(7, 200);
  OccupyPredictor();
  for (int32_t i = 1; i <= 20; ++i) ASSERT_OK(Schedule(5, i));
  predictor_.Release();
  scheduler_->Stop(absl::InfiniteFuture());
  for (int i = 0; i <= 20; ++i) EXPECT_TRUE(results_.IsDone(i)) << i;
  EXPECT_EQ(results_.twice(), 0);
}

}  // namespace
}  // namespace pricer
