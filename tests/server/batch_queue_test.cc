#include "server/batch_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/retry_after.h"
#include "tests/server/fakes.h"
#include "tests/testing/status_matchers.h"

namespace pricer {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::IsOk;
using testing::MakeLoadedAdapter;
using testing::StatusIs;

constexpr auto kExhausted = absl::StatusCode::kResourceExhausted;
constexpr auto kExceeded = absl::StatusCode::kDeadlineExceeded;

struct TaskOptions {
  Lane lane = Lane::kOnline;
  std::string caller = "shop";
  absl::Duration deadline = absl::InfiniteDuration();  // from now
};

class BatchQueueTest : public ::testing::Test {
 protected:
  void Make(const BatchSchedulerOptions& options) {
    queue_ = std::make_unique<BatchQueue>(options);
  }
  void Make(int64_t max_batch_tokens, int64_t max_queue_tokens) {
    Make({.max_batch_tokens = max_batch_tokens, .max_queue_tokens = max_queue_tokens});
  }

  PriceTask Task(int32_t number, int64_t tokens, const TaskOptions& options = {}) const {
    PriceTask task;
    task.ids.assign(tokens, 0);
    task.ids[0] = number;
    task.adapter = adapter_;
    task.lane = options.lane;
    task.caller = options.caller;
    task.deadline = now_ + options.deadline;
    return task;
  }
  absl::Status Admit(PriceTask&& task) { return queue_->Admit(std::move(task), now_).status; }
  absl::Status Admit(int32_t number, int64_t tokens, const TaskOptions& options = {}) {
    return Admit(Task(number, tokens, options));
  }
  static std::vector<int32_t> Numbers(const std::vector<BatchQueue::Waiting>& tasks) {
    std::vector<int32_t> numbers;
    for (const BatchQueue::Waiting& waiting : tasks) numbers.push_back(waiting.task.ids[0]);
    return numbers;
  }
  // Of the next batch.
  std::vector<int32_t> Take() { return Numbers(queue_->Take(now_).batch); }
  // Says that a batch of 100 tokens takes 100 ms, one of none nothing.
  void LearnSpeed() {
    for (int64_t tokens : {50, 100})
      queue_->BatchEnded(tokens, tokens * absl::Milliseconds(1), now_);
  }

  absl::Time now_ = absl::FromUnixSeconds(1'000'000);
  const AdapterHandle adapter_ = MakeLoadedAdapter("toys", 1);
  std::unique_ptr<BatchQueue> queue_;
};

const BatchSchedulerOptions kSmall = {.max_batch_tokens = 100, .max_queue_tokens = 1000};

TEST_F(BatchQueueTest, TasksWithoutADeadlineComeInTheOrderOfArrival) {
  Make(kSmall);
  for (int32_t i = 1; i <= 5; ++i) ASSERT_OK(Admit(i, 40));
  EXPECT_THAT(Take(), ElementsAre(1, 2));
  EXPECT_THAT(Take(), ElementsAre(3, 4));
  EXPECT_THAT(Take(), ElementsAre(5));
  EXPECT_TRUE(queue_->empty());
  EXPECT_THAT(Take(), IsEmpty());
}

TEST_F(BatchQueueTest, TheTaskThatMustStartFirstComesFirst) {
  Make(kSmall);
  ASSERT_OK(Admit(1, 50));  // patient
  ASSERT_OK(Admit(2, 50, {.deadline = absl::Seconds(3)}));
  ASSERT_OK(Admit(3, 50, {.deadline = absl::Seconds(1)}));
  ASSERT_OK(Admit(4, 50, {.deadline = absl::Minutes(5)}));
  EXPECT_THAT(Take(), ElementsAre(3, 2));
  EXPECT_THAT(Take(), ElementsAre(1, 4));
}

// Of two with one deadline the longer one has less slack.
TEST_F(BatchQueueTest, WhatTakesLongMustStartEarlier) {
  Make(kSmall);
  LearnSpeed();
  ASSERT_OK(Admit(1, 10, {.deadline = absl::Seconds(2)}));
  ASSERT_OK(Admit(2, 60, {.deadline = absl::Seconds(2)}));
  EXPECT_THAT(Take(), ElementsAre(2, 1));
}

TEST_F(BatchQueueTest, BulkFillsWhatOnlineLeaves) {
  Make(kSmall);
  ASSERT_OK(Admit(1, 30, {.lane = Lane::kBulk}));
  ASSERT_OK(Admit(2, 30, {.lane = Lane::kBulk}));
  ASSERT_OK(Admit(3, 60));
  EXPECT_THAT(Take(), ElementsAre(3, 1));
  EXPECT_THAT(Take(), ElementsAre(2));
}

TEST_F(BatchQueueTest, BulkGetsItsShareHoweverMuchOnlineWaits) {
  Make({.max_batch_tokens = 100, .max_queue_tokens = 100'000, .min_bulk_share = 0.2});
  int64_t bulk_tokens = 0;
  int64_t all_tokens = 0;
  for (int32_t i = 0; i < 1000; ++i) {
    ASSERT_OK(Admit(1, 25));
    ASSERT_OK(Admit(2, 25, {.lane = Lane::kBulk}));
  }
  for (int batch = 0; batch < 100; ++batch) {
    const BatchQueue::Taken taken = queue_->Take(now_);
    EXPECT_EQ(taken.tokens, 100);
    all_tokens += taken.tokens;
    for (const auto& waiting : taken.batch) {
      if (waiting.task.lane == Lane::kBulk) bulk_tokens += waiting.task.tokens();
    }
  }
  EXPECT_NEAR(static_cast<double>(bulk_tokens) / static_cast<double>(all_tokens), 0.2, 0.01);
}

TEST_F(BatchQueueTest, ABulkItemLongerThanABatchIsNotStarved) {
  Make(kSmall);
  ASSERT_OK(Admit(9, 300, {.lane = Lane::kBulk}));
  bool computed = false;
  for (int batch = 0; batch < 40 && !computed; ++batch) {
    ASSERT_OK(Admit(1, 100));
    computed = Take() == std::vector<int32_t>{9};
  }
  EXPECT_TRUE(computed);
}

TEST_F(BatchQueueTest, WithoutAShareBulkWaitsForOnlineToEnd) {
  Make({.max_batch_tokens = 100, .max_queue_tokens = 1000, .min_bulk_share = 0});
  ASSERT_OK(Admit(9, 10, {.lane = Lane::kBulk}));
  for (int32_t i = 0; i < 5; ++i) ASSERT_OK(Admit(i, 100));
  for (int32_t i = 0; i < 5; ++i) EXPECT_THAT(Take(), ElementsAre(i));
  EXPECT_THAT(Take(), ElementsAre(9));
}

TEST_F(BatchQueueTest, LanesHaveRoomOfTheirOwn) {
  Make(kSmall);
  while (Admit(1, 50, {.lane = Lane::kBulk}).ok()) {
  }
  EXPECT_GE(queue_->tokens(Lane::kBulk), 850);
  EXPECT_OK(Admit(2, 50));
}

TEST_F(BatchQueueTest, CallersTakeTurns) {
  Make(kSmall);
  for (int32_t i = 0; i < 8; ++i) ASSERT_OK(Admit(1, 25, {.caller = "greedy"}));
  for (int32_t i = 0; i < 2; ++i) ASSERT_OK(Admit(2, 25, {.caller = "modest"}));
  EXPECT_THAT(Take(), ElementsAre(1, 2, 1, 2));
  EXPECT_THAT(Take(), ElementsAre(1, 1, 1, 1));
}

TEST_F(BatchQueueTest, ACallerWithLongItemsGetsNoMoreTokens) {
  Make({.max_batch_tokens = 1000, .max_queue_tokens = 1'000'000});
  for (int32_t i = 0; i < 400; ++i) ASSERT_OK(Admit(1, 200, {.caller = "long"}));
  for (int32_t i = 0; i < 1600; ++i) ASSERT_OK(Admit(2, 50, {.caller = "short"}));
  int64_t tokens[3] = {};
  for (int batch = 0; batch < 40; ++batch) {
    for (const auto& waiting : queue_->Take(now_).batch) {
      tokens[waiting.task.ids[0]] += waiting.task.tokens();
    }
  }
  EXPECT_NEAR(static_cast<double>(tokens[1]), static_cast<double>(tokens[2]), 250);
}

TEST_F(BatchQueueTest, ACallerThatComesBackIsNotOwedItsAbsence) {
  Make({.max_batch_tokens = 100, .max_queue_tokens = 100'000});
  for (int32_t i = 0; i < 40; ++i) ASSERT_OK(Admit(1, 50, {.caller = "steady"}));
  for (int batch = 0; batch < 10; ++batch) Take();
  for (int32_t i = 0; i < 40; ++i) ASSERT_OK(Admit(2, 50, {.caller = "late"}));
  for (int batch = 0; batch < 5; ++batch)
    EXPECT_THAT(Take(), ::testing::UnorderedElementsAre(1, 2));
}

TEST_F(BatchQueueTest, RefusesWhatThereIsNoRoomForAndSaysWhenToTryAgain) {
  Make(50, 100);
  ASSERT_OK(Admit(1, 60));
  const absl::Status refused = Admit(2, 41);
  EXPECT_THAT(refused, StatusIs(kExhausted, HasSubstr("60 of 100 tokens wait")));
  EXPECT_EQ(RetryAfterOf(refused), absl::Milliseconds(50));
  EXPECT_OK(Admit(3, 40));
}

TEST_F(BatchQueueTest, TakesAnItemLongerThanTheQueueWhereNothingElseWaits) {
  Make(50, 100);
  EXPECT_OK(Admit(1, 500));
  EXPECT_THAT(Admit(2, 1), StatusIs(kExhausted));
  EXPECT_THAT(Take(), ElementsAre(1));
}

TEST_F(BatchQueueTest, OneCallerCannotFillTheQueue) {
  Make({.max_batch_tokens = 100, .max_queue_tokens = 9000});
  while (Admit(1, 10, {.caller = "greedy"}).ok()) {
  }
  EXPECT_THAT(Admit(1, 10, {.caller = "greedy"}),
              StatusIs(kExhausted, HasSubstr("full for this caller")));
  EXPECT_NEAR(static_cast<double>(queue_->tokens(Lane::kOnline)), 8000, 20);
  EXPECT_OK(Admit(2, 10, {.caller = "modest"}));
}

TEST_F(BatchQueueTest, TheRoomOfWhoHasGoneIsGivenToOthers) {
  Make(50, 100);
  PriceTask task = Task(1, 100);
  const auto cancelled = std::make_shared<std::atomic<bool>>(false);
  task.cancelled = cancelled;
  ASSERT_OK(Admit(std::move(task)));
  EXPECT_THAT(Admit(2, 50), StatusIs(kExhausted));
  cancelled->store(true);
  now_ += absl::Seconds(1);
  EXPECT_OK(Admit(3, 50));
  const BatchQueue::Taken taken = queue_->Take(now_);
  EXPECT_THAT(Numbers(taken.batch), ElementsAre(3));
  EXPECT_THAT(Numbers(taken.dropped), ElementsAre(1));
}

TEST_F(BatchQueueTest, VeryManyCallersMayGoAtOnce) {
  constexpr int32_t kCallers = 3000;
  Make({.max_batch_tokens = 100, .max_queue_tokens = kCallers});
  const auto gone = std::make_shared<std::atomic<bool>>(false);
  for (int32_t i = 0; i < kCallers; ++i) {
    PriceTask task = Task(i, 1, {.caller = "caller " + std::to_string(i)});
    task.cancelled = gone;
    ASSERT_OK(Admit(std::move(task)));
  }
  EXPECT_EQ(queue_->Take(now_).batch.size(), 100u);
  gone->store(true);
  now_ += absl::Seconds(1);
  EXPECT_OK(Admit(1, 2000, {.caller = "caller 1"}));
  EXPECT_OK(Admit(2, 50, {.caller = "caller 2"}));
  const BatchQueue::Taken taken = queue_->Take(now_);
  EXPECT_EQ(taken.dropped.size(), kCallers - 100u);
  EXPECT_EQ(taken.batch.size(), 1u);
}

TEST_F(BatchQueueTest, RefusesWhatCannotBeDoneInTime) {
  Make(kSmall);
  LearnSpeed();
  EXPECT_THAT(Admit(1, 50, {.deadline = absl::Milliseconds(40)}),
              StatusIs(kExceeded, HasSubstr("in about 50 ms, and its deadline is in 40 ms")));
  EXPECT_OK(Admit(2, 50, {.deadline = absl::Milliseconds(60)}));
  // Behind a whole batch of the same caller that must start earlier; of the time that it can wait,
  // a quarter is kept.
  ASSERT_OK(Admit(3, 50, {.deadline = absl::Milliseconds(120)}));
  EXPECT_THAT(Admit(4, 50, {.deadline = absl::Milliseconds(140)}), StatusIs(kExceeded));
  EXPECT_THAT(Admit(4, 50, {.deadline = absl::Milliseconds(180)}), StatusIs(kExceeded));
  EXPECT_OK(Admit(5, 50, {.deadline = absl::Milliseconds(190)}));
}

TEST_F(BatchQueueTest, ABatchClosesBeforeItMakesATaskLate) {
  Make(kSmall);
  LearnSpeed();
  ASSERT_OK(Admit(1, 20, {.deadline = absl::Milliseconds(60)}));
  ASSERT_OK(Admit(2, 20));
  ASSERT_OK(Admit(3, 20));
  ASSERT_OK(Admit(4, 20, {.lane = Lane::kBulk}));
  // 40 tokens take 40 ms, and nearly always less than 60; 60 often take longer.
  BatchQueue::Taken taken = queue_->Take(now_);
  EXPECT_THAT(Numbers(taken.batch), ElementsAre(1, 2));
  EXPECT_EQ(taken.done_by, now_ + absl::Milliseconds(60));
  taken = queue_->Take(now_);
  EXPECT_THAT(Numbers(taken.batch), ElementsAre(3, 4));
  EXPECT_EQ(taken.done_by, absl::InfiniteFuture());
}

TEST_F(BatchQueueTest, WhatCanNoLongerBeDoneInTimeIsNotComputed) {
  Make(kSmall);
  LearnSpeed();
  ASSERT_OK(Admit(1, 50, {.deadline = absl::Milliseconds(60)}));
  ASSERT_OK(Admit(2, 50));
  now_ += absl::Milliseconds(20);
  const BatchQueue::Taken taken = queue_->Take(now_);
  EXPECT_THAT(Numbers(taken.batch), ElementsAre(2));
  ASSERT_THAT(Numbers(taken.dropped), ElementsAre(1));
  EXPECT_THAT(taken.dropped[0].failure,
              StatusIs(kExceeded, HasSubstr("in about 50 ms, and its deadline is in 40 ms")));
  EXPECT_EQ(taken.dropped[0].failed_by, DropReason::kTooLate);
}

// Else nothing would be computed, and nothing learnt, where the estimate is wrong.
TEST_F(BatchQueueTest, TheLastTaskIsTriedThoughItSeemsLate) {
  Make(kSmall);
  LearnSpeed();
  for (int32_t i = 1; i <= 3; ++i) {
    ASSERT_OK(Admit(i, 50, {.deadline = absl::Milliseconds(60 + 100 * i)}));
  }
  now_ += absl::Milliseconds(340);
  const BatchQueue::Taken taken = queue_->Take(now_);
  EXPECT_THAT(Numbers(taken.batch), ElementsAre(3));
  EXPECT_EQ(taken.dropped.size(), 2u);
}

TEST_F(BatchQueueTest, AServerThatWasSlowOnceFindsOutThatItNoLongerIs) {
  Make(kSmall);
  for (int64_t tokens : {50, 100}) {
    queue_->BatchEnded(tokens, tokens * absl::Milliseconds(100), now_);
  }
  const TaskOptions second = {.deadline = absl::Seconds(1)};
  EXPECT_THAT(Admit(1, 50, second), StatusIs(kExceeded, HasSubstr("in about 5000 ms")));
  now_ += BatchQueue::kTrust;
  ASSERT_OK(Admit(2, 50, second));
  // One at a time.
  EXPECT_THAT(Admit(3, 50, second), StatusIs(kExceeded));
  EXPECT_THAT(Take(), ElementsAre(2));
  queue_->BatchStarted(50, now_);
  now_ += BatchQueue::kTrust;
  EXPECT_THAT(Admit(4, 50, second), StatusIs(kExceeded));
  queue_->BatchEnded(50, absl::Milliseconds(50), now_);
  int tries = 1;
  while (!Admit(5, 50, second).ok()) {
    now_ += BatchQueue::kTrust;
    ASSERT_OK(Admit(6, 50, second));
    EXPECT_THAT(Take(), ElementsAre(6));
    queue_->BatchEnded(50, absl::Milliseconds(50), now_);
    ASSERT_LT(++tries, 100);
  }
}

TEST_F(BatchQueueTest, WhatIsBeingComputedCountsForTheDeadline) {
  Make(kSmall);
  LearnSpeed();
  queue_->BatchStarted(100, now_);
  EXPECT_THAT(Admit(1, 50, {.deadline = absl::Milliseconds(160)}), StatusIs(kExceeded));
  now_ += absl::Milliseconds(20);
  EXPECT_OK(Admit(2, 50, {.deadline = absl::Milliseconds(160)}));
}

TEST_F(BatchQueueTest, AnUrgentTaskIsTakenThoughPatientOnesFillTheQueue) {
  Make(kSmall);
  LearnSpeed();
  for (int32_t i = 0; i < 8; ++i) ASSERT_OK(Admit(i, 100));
  EXPECT_OK(Admit(9, 50, {.deadline = absl::Milliseconds(160)}));
  EXPECT_THAT(Take(), ElementsAre(9));
}

TEST_F(BatchQueueTest, OtherCallersQueuesCountOnlyByTheirTurns) {
  Make(kSmall);
  LearnSpeed();
  for (int32_t i = 0; i < 8; ++i) ASSERT_OK(Admit(i, 100, {.caller = "greedy"}));
  // One batch of the other caller, then this one's.
  EXPECT_OK(Admit(9, 50, {.caller = "modest", .deadline = absl::Milliseconds(210)}));
}

TEST_F(BatchQueueTest, ExpiredTasksAreDroppedAndNeverTaken) {
  Make(kSmall);
  ASSERT_OK(Admit(1, 50, {.deadline = absl::Seconds(1)}));
  ASSERT_OK(Admit(2, 50));
  now_ += absl::Seconds(1);
  const BatchQueue::Taken taken = queue_->Take(now_);
  EXPECT_THAT(Numbers(taken.batch), ElementsAre(2));
  EXPECT_THAT(Numbers(taken.dropped), ElementsAre(1));
  EXPECT_EQ(taken.tokens, 50);
}

TEST_F(BatchQueueTest, AQuotaLimitsTokensASecond) {
  Make({.max_batch_tokens = 100, .max_queue_tokens = 100'000, .quotas = {{"metered", 100.0}}});
  EXPECT_OK(Admit(1, 60, {.caller = "metered"}));
  EXPECT_OK(Admit(2, 40, {.caller = "metered"}));
  const absl::Status refused = Admit(3, 50, {.caller = "metered"});
  EXPECT_THAT(refused, StatusIs(kExhausted, HasSubstr("quota of 100 tokens a second")));
  EXPECT_EQ(RetryAfterOf(refused), absl::Milliseconds(500));
  EXPECT_OK(Admit(4, 5000, {.caller = "free"}));
  now_ += absl::Milliseconds(500);
  EXPECT_OK(Admit(5, 50, {.caller = "metered"}));
}

TEST_F(BatchQueueTest, WhatACallTakesBeyondItsQuotaIsOwed) {
  Make({.max_batch_tokens = 100, .max_queue_tokens = 100'000, .quotas = {{"metered", 100.0}}});
  ASSERT_OK(Admit(1, 100, {.caller = "metered"}));
  PriceTask task = Task(2, 200, {.caller = "metered"});
  task.replaces = true;
  ASSERT_OK(Admit(std::move(task)));
  now_ += absl::Seconds(2);
  EXPECT_THAT(Admit(3, 10, {.caller = "metered"}), StatusIs(kExhausted));
  now_ += absl::Milliseconds(150);
  EXPECT_OK(Admit(4, 10, {.caller = "metered"}));
}

TEST_F(BatchQueueTest, TheServersOwnTasksComeFirstThoughTheQueueIsFull) {
  Make(50, 100);
  ASSERT_OK(Admit(1, 100));
  PriceTask own = Task(2, 30);
  own.internal = true;
  ASSERT_OK(Admit(std::move(own)));
  EXPECT_THAT(Take(), ElementsAre(2));
  EXPECT_THAT(Take(), ElementsAre(1));
}

TEST_F(BatchQueueTest, GivingUpDropsAll) {
  Make(kSmall);
  ASSERT_OK(Admit(1, 50));
  ASSERT_OK(Admit(2, 50, {.lane = Lane::kBulk}));
  const BatchQueue::Taken taken = queue_->Take(now_, /*give_up=*/true);
  EXPECT_THAT(taken.batch, IsEmpty());
  EXPECT_EQ(taken.dropped.size(), 2u);
  EXPECT_TRUE(queue_->empty());
}

TEST(BatchSchedulerOptionsTest, NamesTheOptionThatIsWrong) {
  const auto problem = [](const BatchSchedulerOptions& options) {
    return std::string(options.Validate().message());
  };
  EXPECT_OK(BatchSchedulerOptions().Validate());
  EXPECT_THAT(problem({.max_batch_tokens = 0}), HasSubstr("--max-batch-tokens"));
  EXPECT_THAT(problem({.max_batch_tokens = 10, .max_queue_tokens = 9}),
              HasSubstr("--max-queue-tokens"));
  EXPECT_THAT(problem({.min_bulk_share = 1}), HasSubstr("--min-bulk-share"));
  EXPECT_THAT(problem({.quotas = {{"shop", 0.0}}}), HasSubstr("the quota of shop"));
}

}  // namespace
}  // namespace pricer
