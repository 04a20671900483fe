#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <vector>

#include "server/batch_queue.h"
#include "tests/server/fakes.h"
#include "tests/testing/status_matchers.h"

// Tasks whose adapter's tensors are still to be fetched.

namespace pricer {
namespace {

using ::testing::ElementsAre;
using testing::FakeTensors;
using ::testing::IsEmpty;
using testing::MakeLoadedAdapter;
using testing::StatusIs;

class BatchQueueParkingTest : public ::testing::Test {
 protected:
  absl::Status Admit(int32_t number, int64_t tokens, const AdapterHandle& adapter,
                     absl::Duration deadline = absl::InfiniteDuration(), bool internal = false) {
    PriceTask task;
    task.ids.assign(tokens, 0);
    task.ids[0] = number;
    task.adapter = adapter;
    task.caller = "shop";
    task.deadline = now_ + deadline;
    task.internal = internal;
    return queue_.Admit(std::move(task), now_, acquire_).status;
  }
  void Fetched(const AdapterHandle& adapter) {
    in_memory_.insert(adapter.get());
    queue_.Unpark(adapter.get(), acquire_);
  }
  static std::vector<int32_t> Numbers(const std::vector<BatchQueue::Waiting>& tasks) {
    std::vector<int32_t> numbers;
    for (const BatchQueue::Waiting& waiting : tasks) numbers.push_back(waiting.task.ids[0]);
    return numbers;
  }
  std::vector<int32_t> Take() { return Numbers(queue_.Take(now_).batch); }

  const AdapterHandle hot_ = MakeLoadedAdapter("hot", 1);
  const AdapterHandle cold_ = MakeLoadedAdapter("cold", 1);
  std::set<const LoadedAdapter*> in_memory_ = {hot_.get()};
  absl::Status failure_;
  const BatchQueue::Acquire acquire_ = [this](PriceTask* task) {
    if (in_memory_.count(task->adapter.get()) > 0) {
      task->tensors = std::make_shared<FakeTensors>(false);
    }
    return failure_;
  };
  absl::Time now_ = absl::FromUnixSeconds(1'000'000);
  BatchQueue queue_{{.max_batch_tokens = 100, .max_queue_tokens = 1000}};
};

TEST_F(BatchQueueParkingTest, AParkedTaskHoldsUpNoOtherAndKeepsItsTurn) {
  ASSERT_OK(Admit(1, 40, cold_));
  ASSERT_OK(Admit(2, 40, hot_));
  ASSERT_OK(Admit(3, 40, hot_));
  ASSERT_OK(Admit(4, 40, hot_));
  EXPECT_THAT(Take(), ElementsAre(2, 3));
  Fetched(cold_);
  EXPECT_THAT(Take(), ElementsAre(1, 4));
  EXPECT_TRUE(queue_.empty());
}

TEST_F(BatchQueueParkingTest, ParkedTasksAloneAreNothingToTake) {
  ASSERT_OK(Admit(1, 40, cold_));
  EXPECT_FALSE(queue_.ready());
  EXPECT_FALSE(queue_.empty());
  EXPECT_THAT(Take(), IsEmpty());
  Fetched(cold_);
  EXPECT_TRUE(queue_.ready());
  EXPECT_THAT(Take(), ElementsAre(1));
}

TEST_F(BatchQueueParkingTest, ParkedTokensTakeRoomInTheQueue) {
  ASSERT_OK(Admit(1, 800, cold_));
  EXPECT_EQ(queue_.tokens(Lane::kOnline), 800);
  EXPECT_EQ(queue_.items(), 1);
  EXPECT_THAT(Admit(2, 300, hot_), StatusIs(absl::StatusCode::kResourceExhausted));
  Fetched(cold_);
  EXPECT_EQ(queue_.tokens(Lane::kOnline), 800);
  EXPECT_THAT(Take(), ElementsAre(1));
  EXPECT_EQ(queue_.tokens(Lane::kOnline), 0);
  EXPECT_OK(Admit(2, 300, hot_));
}

TEST_F(BatchQueueParkingTest, TasksOfAnAdapterThatCannotBeFetchedAreDroppedWithTheReason) {
  ASSERT_OK(Admit(1, 40, cold_));
  ASSERT_OK(Admit(2, 40, hot_));
  queue_.FailParked(cold_.get(), absl::DataLossError("short file"));
  const BatchQueue::Taken taken = queue_.Take(now_);
  EXPECT_THAT(Numbers(taken.batch), ElementsAre(2));
  ASSERT_THAT(Numbers(taken.dropped), ElementsAre(1));
  EXPECT_THAT(taken.dropped[0].failure, StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_TRUE(queue_.empty());
  EXPECT_EQ(queue_.tokens(Lane::kOnline), 0);
}

TEST_F(BatchQueueParkingTest, AnErrorAtTheDoorTakesNothingIn) {
  failure_ = absl::DataLossError("short file");
  EXPECT_THAT(Admit(1, 40, cold_), StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_TRUE(queue_.empty());
  EXPECT_EQ(queue_.tokens(Lane::kOnline), 0);
}

TEST_F(BatchQueueParkingTest, AnErrorWhileTensorsAreAskedForAgainDropsTheTask) {
  ASSERT_OK(Admit(1, 40, cold_));
  failure_ = absl::UnavailableError("stopping");
  Fetched(cold_);
  const BatchQueue::Taken taken = queue_.Take(now_);
  ASSERT_THAT(Numbers(taken.dropped), ElementsAre(1));
  EXPECT_THAT(taken.dropped[0].failure, StatusIs(absl::StatusCode::kUnavailable));
}

TEST_F(BatchQueueParkingTest, EvictedAgainBeforeItsTurnATaskStaysParked) {
  ASSERT_OK(Admit(1, 40, cold_));
  queue_.Unpark(cold_.get(), acquire_);  // it is not in memory
  EXPECT_FALSE(queue_.ready());
  Fetched(cold_);
  EXPECT_THAT(Take(), ElementsAre(1));
}

TEST_F(BatchQueueParkingTest, ExpiredParkedTasksMakeRoom) {
  ASSERT_OK(Admit(1, 900, cold_, absl::Seconds(1)));
  now_ += absl::Seconds(2);
  EXPECT_OK(Admit(2, 300, hot_));
  const BatchQueue::Taken taken = queue_.Take(now_);
  EXPECT_THAT(Numbers(taken.dropped), ElementsAre(1));
  EXPECT_OK(taken.dropped[0].failure);
  EXPECT_THAT(Numbers(taken.batch), ElementsAre(2));
  Fetched(cold_);
  EXPECT_TRUE(queue_.empty());
}

TEST_F(BatchQueueParkingTest, GivingUpDropsParkedTasks) {
  ASSERT_OK(Admit(1, 40, cold_));
  ASSERT_OK(Admit(2, 40, cold_, absl::InfiniteDuration(), /*internal=*/true));
  EXPECT_THAT(Numbers(queue_.Take(now_, /*give_up=*/true).dropped), ElementsAre(1, 2));
  EXPECT_TRUE(queue_.empty());
}

TEST_F(BatchQueueParkingTest, InternalTasksParkAndComeFirstThen) {
  ASSERT_OK(Admit(1, 40, cold_, absl::InfiniteDuration(), /*internal=*/true));
  ASSERT_OK(Admit(2, 40, hot_));
  EXPECT_EQ(queue_.tokens(Lane::kOnline), 40);
  Fetched(cold_);
  EXPECT_THAT(Take(), ElementsAre(1, 2));
}

TEST_F(BatchQueueParkingTest, TheBaseIsNeverParked) {
  ASSERT_OK(Admit(1, 40, MakeLoadedAdapter(kBaseName, 0)));
  EXPECT_THAT(Take(), ElementsAre(1));
}

}  // namespace
}  // namespace pricer
