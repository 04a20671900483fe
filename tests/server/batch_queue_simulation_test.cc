#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "server/batch_queue.h"
#include "tests/server/fakes.h"

// A made-up day of a server: tasks arrive at random, a million and more, some are cancelled,
// batches take the time that a batch takes; and whatever happens, what BatchQueue promises holds.
// Time is simulated.

namespace pricer {
namespace {

constexpr int64_t kMaxTokens = 400;  // of one task

struct Load {
  const char* name;
  uint32_t seed;
  int64_t arrivals = 100'000;
  double load = 0.7;        // of what the predictor computes
  double bulk = 0.3;        // share of the tasks
  double deadlines = 0.5;   // share of the online tasks that have one
  double cancelled = 0.02;  // share of the tasks whose caller goes
  int callers = 5;          // the first sends half of all tasks
  double fetched = 0;       // share of the tasks whose adapter is on disk when they come
  // What a batch takes: this, and 50 us a token, and up to such a share more or less.
  absl::Duration constant = absl::Milliseconds(4);
  double noise = 0;
  // Of online tasks that have one; zero = 50 ms to 7 s.
  absl::Duration deadline = absl::ZeroDuration();
  double useful = 0;  // of what the predictor computes, at least so much is done in time
};

void PrintTo(const Load& load, std::ostream* out) { *out << load.name; }

class BatchQueueSimulation : public ::testing::TestWithParam<Load> {
 protected:
  static BatchSchedulerOptions Options() {
    return {.max_batch_tokens = 2048, .max_queue_tokens = 32768, .min_bulk_share = 0.1};
  }
  // What a batch takes on average; the queue has to find out.
  absl::Duration TimeOf(int64_t tokens) const {
    return load_.constant + tokens * absl::Microseconds(50);
  }

  struct Fate {
    Lane lane;
    int64_t tokens;
    absl::Time admitted;
    absl::Time deadline;
    std::shared_ptr<std::atomic<bool>> cancelled;
    int caller;
    int ended = 0;
  };

  void Arrive();
  void Cancel();
  // Ends what one adapter waits for, now and then by a failure.
  void EndFetch();
  void StartBatch();
  void CheckBatch(const BatchQueue::Taken& taken, bool both_wait);
  double Uniform() { return std::uniform_real_distribution<double>()(random_); }

  const Load load_ = GetParam();
  std::mt19937_64 random_{load_.seed};
  std::vector<AdapterHandle> adapters_;
  const TensorsHandle tensors_ = std::make_shared<testing::FakeTensors>(false);
  BatchQueue queue_{Options()};
  absl::Time now_ = absl::FromUnixSeconds(1'000'000);
  absl::Time batch_start_;
  absl::Time batch_end_ = absl::InfiniteFuture();
  int64_t batch_tokens_ = 0;
  std::vector<Fate> fates_;
  std::deque<size_t> cancellable_;
  // By admission, to check the sums of the queue.
  int64_t waiting_tokens_[kLaneCount] = {};
  int64_t waiting_items_ = 0;
  // Computed while both lanes waited before and after a batch was taken.
  int64_t contended_tokens_ = 0;
  int64_t contended_bulk_tokens_ = 0;
  int64_t refused_ = 0;
  int64_t computed_ = 0;
  int64_t dropped_ = 0;
  int64_t late_ = 0;  // computed behind their deadline
  int64_t computed_tokens_ = 0;
  int64_t useful_tokens_ = 0;  // computed before it
  absl::Duration longest_wait_[kLaneCount];
};

void BatchQueueSimulation::Arrive() {
  Fate fate;
  fate.lane = Uniform() < load_.bulk ? Lane::kBulk : Lane::kOnline;
  fate.tokens = 1 + static_cast<int64_t>(std::pow(Uniform(), 2) * (kMaxTokens - 1));
  fate.admitted = now_;
  fate.deadline = absl::InfiniteFuture();
  if (fate.lane == Lane::kOnline && Uniform() < load_.deadlines) {
    fate.deadline =
        now_ + (load_.deadline > absl::ZeroDuration() ? load_.deadline
                                                      : absl::Seconds(std::exp(5 * Uniform() - 3)));
  }
  fate.cancelled = std::make_shared<std::atomic<bool>>(false);
  fate.caller = Uniform() < 0.5 ? 0 : static_cast<int>(Uniform() * load_.callers);
  PriceTask task;
  task.ids.assign(fate.tokens, 0);
  task.adapter = adapters_[random_() % adapters_.size()];
  task.lane = fate.lane;
  task.caller = "caller " + std::to_string(fate.caller);
  task.deadline = fate.deadline;
  task.cancelled = fate.cancelled;
  task.extra_rows = 0;
  const size_t number = fates_.size();
  // Which task it is comes back with it.
  task.done = [this, number](const TaskResult&) { ++fates_[number].ended; };
  const Lane lane = fate.lane;
  int64_t& waiting_tokens = waiting_tokens_[static_cast<int>(lane)];
  const bool empty = waiting_tokens == 0;
  const bool on_disk = Uniform() < load_.fetched;
  const BatchQueue::Refusal refusal = queue_.Admit(std::move(task), now_, [&](PriceTask* admitted) {
    if (!on_disk) admitted->tensors = tensors_;
    return absl::OkStatus();
  });
  if (!refusal.status.ok()) {
    ++refused_;
    ASSERT_FALSE(empty && refusal.reason == RefusalReason::kQueueFull);
    return;
  }
  waiting_tokens += fate.tokens;
  ++waiting_items_;
  if (Uniform() < load_.cancelled) cancellable_.push_back(number);
  fates_.push_back(std::move(fate));
  ASSERT_LE(queue_.tokens(lane), Options().max_queue_tokens);
}

void BatchQueueSimulation::Cancel() {
  if (cancellable_.empty()) return;
  fates_[cancellable_.front()].cancelled->store(true);
  cancellable_.pop_front();
}

void BatchQueueSimulation::EndFetch() {
  const LoadedAdapter* const adapter = adapters_[random_() % adapters_.size()].get();
  if (Uniform() < 0.1) {
    queue_.FailParked(adapter, absl::UnavailableError("the folder is gone"));
    return;
  }
  // Some are gone again.
  queue_.Unpark(adapter, [this](PriceTask* task) {
    if (Uniform() < 0.9) task->tensors = tensors_;
    return absl::OkStatus();
  });
}

void BatchQueueSimulation::CheckBatch(const BatchQueue::Taken& taken, bool both_wait) {
  int64_t tokens = 0;
  int64_t bulk_tokens = 0;
  for (const auto& waiting : taken.batch) {
    const PriceTask& task = waiting.task;
    ASSERT_FALSE(task.cancelled->load());
    ASSERT_GT(task.deadline, now_);
    ASSERT_NE(task.tensors, nullptr);
    tokens += task.tokens();
    if (task.lane == Lane::kBulk) bulk_tokens += task.tokens();
  }
  ASSERT_EQ(tokens, taken.tokens);
  ASSERT_TRUE(taken.batch.size() <= 1 || tokens <= Options().max_batch_tokens);
  for (const auto& waiting : taken.dropped) {
    ASSERT_TRUE(waiting.task.gone() || waiting.task.expired(now_) || !waiting.failure.ok());
  }
  // Nothing computable waits beside an idle predictor.
  ASSERT_TRUE(!taken.batch.empty() || !queue_.ready());
  // A batch is not closed while the next task of the lane that is served last would fit, and make
  // none late.
  if (load_.fetched == 0 && both_wait && queue_.tokens(Lane::kOnline) > 0 &&
      queue_.tokens(Lane::kBulk) > 0) {
    const int64_t with_next = tokens + kMaxTokens;
    ASSERT_TRUE(with_next > Options().max_batch_tokens ||
                now_ + queue_.cost().AtMost(with_next) > taken.done_by)
        << tokens;
    contended_tokens_ += tokens;
    contended_bulk_tokens_ += bulk_tokens;
  }
}

void BatchQueueSimulation::StartBatch() {
  const bool both_wait = queue_.tokens(Lane::kOnline) > 0 && queue_.tokens(Lane::kBulk) > 0;
  BatchQueue::Taken taken = queue_.Take(now_);
  CheckBatch(taken, both_wait);
  for (auto* tasks : {&taken.batch, &taken.dropped}) {
    for (auto& waiting : *tasks) {
      waiting_tokens_[static_cast<int>(waiting.task.lane)] -= waiting.task.tokens();
      --waiting_items_;
      waiting.task.done({absl::UnknownError(""), absl::ZeroDuration(), absl::ZeroDuration()});
    }
  }
  for (Lane lane : kLanes) {
    ASSERT_EQ(queue_.tokens(lane), waiting_tokens_[static_cast<int>(lane)]);
  }
  ASSERT_EQ(queue_.items(), waiting_items_);
  computed_ += static_cast<int64_t>(taken.batch.size());
  dropped_ += static_cast<int64_t>(taken.dropped.size());
  computed_tokens_ += taken.tokens;
  if (taken.batch.empty()) return;
  queue_.BatchStarted(taken.tokens, now_);
  batch_tokens_ = taken.tokens;
  batch_start_ = now_;
  batch_end_ = now_ + TimeOf(taken.tokens) * (1 + load_.noise * (2 * Uniform() - 1));
  for (const auto& waiting : taken.batch) {
    absl::Duration& longest = longest_wait_[static_cast<int>(waiting.task.lane)];
    longest = std::max(longest, now_ - waiting.admitted);
    if (waiting.task.deadline < batch_end_) {
      ++late_;
    } else {
      useful_tokens_ += waiting.task.tokens();
    }
  }
}

TEST_P(BatchQueueSimulation, WhatTheQueuePromisesHolds) {
  for (int64_t version = 1; version <= 20; ++version) {
    adapters_.push_back(testing::MakeLoadedAdapter("toys", version));
  }
  const double tokens_per_second = 2048 / absl::ToDoubleSeconds(TimeOf(2048));
  const double mean_tokens = 1 + (kMaxTokens - 1) / 3.0;
  const double rate = load_.load * tokens_per_second / mean_tokens;
  std::exponential_distribution<double> gap(rate);
  fates_.reserve(load_.arrivals);
  const absl::Time start = now_;
  absl::Time next = now_;
  for (int64_t arrivals = 0; arrivals < load_.arrivals;) {
    if (batch_end_ <= next) {
      now_ = batch_end_;
      queue_.BatchEnded(batch_tokens_, now_ - batch_start_, now_);
      batch_end_ = absl::InfiniteFuture();
    } else {
      now_ = next;
      ASSERT_NO_FATAL_FAILURE(Arrive());
      if (Uniform() < 2 * load_.cancelled) Cancel();
      if (Uniform() < load_.fetched) EndFetch();
      ++arrivals;
      next = now_ + absl::Seconds(gap(random_));
    }
    if (batch_end_ == absl::InfiniteFuture() && queue_.ready()) {
      ASSERT_NO_FATAL_FAILURE(StartBatch());
    }
  }
  const double seconds = absl::ToDoubleSeconds(now_ - start);
  const double computed_per_second = static_cast<double>(computed_tokens_) / seconds;
  const double useful_per_second = static_cast<double>(useful_tokens_) / seconds;
  while (batch_end_ != absl::InfiniteFuture() || !queue_.empty()) {
    now_ = std::max(now_, batch_end_ == absl::InfiniteFuture() ? now_ : batch_end_);
    batch_end_ = absl::InfiniteFuture();
    while (!queue_.empty() && !queue_.ready()) EndFetch();
    ASSERT_NO_FATAL_FAILURE(StartBatch());
  }
  EXPECT_TRUE(
      std::all_of(fates_.begin(), fates_.end(), [](const Fate& fate) { return fate.ended == 1; }));
  EXPECT_EQ(computed_ + dropped_ + refused_, load_.arrivals);
  // What is computed is done in time, but for what nothing foresees.
  EXPECT_LT(static_cast<double>(late_), 0.02 * static_cast<double>(computed_));
  EXPECT_GE(useful_per_second, load_.useful * tokens_per_second);
  if (load_.fetched > 0) return;
  if (contended_tokens_ > 0) {
    EXPECT_GE(static_cast<double>(contended_bulk_tokens_),
              0.1 * static_cast<double>(contended_tokens_) - 2 * kMaxTokens);
  }
  EXPECT_TRUE(load_.load >= 0.8 || load_.deadlines > 0 || refused_ == 0);
  // Nothing waits for much longer than its patience and what its lane computes of a full queue, and
  // in a lane that gets no more than its share, of which one caller has queued nearly all, for its
  // turns among the others.
  if (load_.callers > 10) return;
  const double full = 1.1 * static_cast<double>(Options().max_queue_tokens) / computed_per_second;
  EXPECT_LT(longest_wait_[0], BatchQueue::kPatience + absl::Seconds(full / 0.9));
  EXPECT_LT(longest_wait_[1], BatchQueue::kPatience + absl::Seconds(full / 0.1 * load_.callers));
}

INSTANTIATE_TEST_SUITE_P(
    Loads, BatchQueueSimulation,
    ::testing::Values(Load{.name = "Calm", .seed = 1, .load = 0.3},
                      Load{.name = "Busy", .seed = 2, .arrivals = 1'000'000, .load = 0.9},
                      Load{.name = "Overloaded", .seed = 3, .load = 3.0, .useful = 0.95},
                      Load{.name = "OnlineFlood", .seed = 4, .load = 2.0, .bulk = 0.1},
                      Load{.name = "NoDeadlines", .seed = 5, .load = 0.7, .deadlines = 0},
                      Load{.name = "ManyCallers", .seed = 6, .load = 1.5, .callers = 500},
                      Load{.name = "ManyCancel", .seed = 7, .load = 1.2, .cancelled = 0.3},
                      Load{.name = "ManyFetches", .seed = 8, .load = 0.8, .fetched = 0.3},
                      Load{.name = "DeadlinesLimit",
                           .seed = 9,
                           .load = 7,
                           .bulk = 0,
                           .deadlines = 1,
                           .noise = 0.2,
                           .deadline = absl::Seconds(1),
                           .useful = 0.95},
                      // Of a full batch's time.
                      Load{.name = "OneBatchFillsADeadline",
                           .seed = 10,
                           .load = 7,
                           .bulk = 0,
                           .deadlines = 1,
                           .constant = absl::ZeroDuration(),
                           .noise = 0.2,
                           .deadline = absl::Milliseconds(100),
                           .useful = 0.95},
                      // A third of a full batch's time is spent whatever is in it.
                      Load{.name = "SmallBatchesAreDear",
                           .seed = 11,
                           .load = 3,
                           .bulk = 0,
                           .deadlines = 1,
                           .constant = absl::Milliseconds(50),
                           .noise = 0.1,
                           .deadline = absl::Milliseconds(400),
                           .useful = 0.6}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace pricer
