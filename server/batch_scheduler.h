#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "model/price_distribution.h"
#include "server/batch_predictor.h"
#include "server/loaded_adapter.h"
#include "server/metrics.h"

namespace pricer {

struct TaskResult {
  // DeadlineExceeded or Cancelled: never computed. Unavailable: the scheduler stopped first.
  absl::StatusOr<PriceDistribution> distribution;
  // From Schedule to the start of its batch.
  absl::Duration queue_time;
  // Of the whole batch; zero where the task was not computed.
  absl::Duration compute_time;
};

// One tokenized prompt to price.
struct PriceTask {
  std::vector<int32_t> ids;  // not empty
  AdapterHandle adapter;     // not null
  // What it is expected to cost beside the prompt, in rows of the forward pass, which count as
  // tokens wherever tokens are limited: LoadedAdapter::extra_rows().
  int64_t extra_rows = 0;
  absl::Time deadline = absl::InfiniteFuture();
  // Set by the caller when nobody waits any more; null = that cannot happen.
  std::shared_ptr<const std::atomic<bool>> cancelled;
  // The server's own work, such as golden items, of which there is one at a time: taken though the
  // queue is full, ahead of callers' tasks, and not counted as an item priced.
  bool internal = false;
  // Follows an earlier task of its call that has left the queue: taken though the queue is full.
  bool replaces = false;
  // Called exactly once where Schedule returned OK, mostly on the batch thread, which waits for it:
  // it must not block.
  std::function<void(TaskResult)> done;

  int64_t tokens() const { return static_cast<int64_t>(ids.size()) + extra_rows; }
};

struct BatchSchedulerOptions {
  // Tokens of one batch, with the rows of price trees. More makes better use of the processor and
  // makes a request that has just missed a batch wait longer. A single longer item is computed
  // alone.
  int64_t max_batch_tokens = 2048;
  // Tokens that may wait; beyond them tasks are refused at once, but for those that replace others:
  // about a batch more. At least max_batch_tokens.
  int64_t max_queue_tokens = 65536;

  absl::Status Validate() const;
};

// Packs waiting tasks into batches and runs them on one thread of its own. Thread-safe.
//
// When a batch closes: as soon as the predictor is free and a task waits, the batch takes tasks in
// the order of arrival, internal ones first, up to the first one that would exceed
// max_batch_tokens. It never waits for more to come. Under load, batches fill while the one before
// them is computed.
//
// Tasks whose deadline has passed or whose caller has gone are dropped when a batch is formed: they
// never reach the predictor. A batch that is being computed runs to its end.
class BatchScheduler {
 public:
  // `predictor`, `metrics` and `clock` must outlive the scheduler.
  BatchScheduler(const BatchSchedulerOptions& options, BatchPredictor* predictor, Metrics* metrics,
                 const Clock* clock);
  // Stop(absl::InfinitePast()).
  ~BatchScheduler();
  BatchScheduler(const BatchScheduler&) = delete;
  BatchScheduler& operator=(const BatchScheduler&) = delete;

  // Hands a task over; does not block. On error `task` is as it was and `done` is never called:
  // ResourceExhausted where the queue is full, DeadlineExceeded where the deadline has passed,
  // Unavailable where the scheduler is stopping. An item longer than the whole queue is taken when
  // nothing else waits.
  absl::Status Schedule(PriceTask&& task);

  // Whether a task of so many tokens would be taken now; another caller may be faster.
  bool HasRoom(int64_t tokens) const;

  // When to try again after ResourceExhausted: about when the next batch leaves the queue.
  absl::Duration RetryDelay() const;

  const BatchSchedulerOptions& options() const { return options_; }

  // Refuses new tasks, computes the waiting ones as long as `deadline` has not passed, fails the
  // rest with Unavailable and ends the thread. A batch that is being computed is always finished.
  // One caller.
  void Stop(absl::Time deadline);

 private:
  struct Waiting {
    PriceTask task;
    absl::Time admitted;
  };

  void Run();
  // Waits for work. Moves what the next batch computes to `batch` and what it drops to `dropped`;
  // false = ended.
  bool TakeBatch(std::vector<Waiting>* batch, std::vector<Waiting>* dropped);
  void TakeFromQueue(absl::Time now, std::vector<Waiting>* batch, std::vector<Waiting>* dropped)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Compute(std::vector<Waiting> batch);
  void Drop(std::vector<Waiting> dropped);
  bool HasRoomLocked(int64_t tokens) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status AdmitLocked(const PriceTask& task, absl::Time now) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const BatchSchedulerOptions options_;
  BatchPredictor* const predictor_;
  Metrics* const metrics_;
  const Clock* const clock_;

  mutable Mutex mutex_;
  CondVar work_;
  std::deque<Waiting> queue_ ABSL_GUARDED_BY(mutex_);
  int64_t queue_tokens_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Time stop_deadline_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteFuture();
  absl::Duration last_compute_time_ ABSL_GUARDED_BY(mutex_) = absl::ZeroDuration();

  // Last, so that it starts when all else is made.
  std::thread thread_;
};

}  // namespace pricer
