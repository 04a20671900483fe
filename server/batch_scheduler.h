#pragma once

#include <optional>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "server/adapter_memory.h"
#include "server/batch_predictor.h"
#include "server/batch_queue.h"
#include "server/metrics.h"
#include "server/price_task.h"

namespace pricer {

// Packs waiting tasks into batches, by the rules of BatchQueue, and runs them on one thread of its
// own. While a batch is computed, the queue keeps what waits in order, and another thread tells
// what became of the batch before, where that took long enough to be worth it: between two batches
// the first tasks are taken and little else is done. Thread-safe.
//
// When a batch closes: as soon as the predictor is free and a task waits, with what waits then. It
// never waits for more to come. Under load, batches fill while the one before them is computed.
//
// Tasks whose deadline has passed or whose caller has gone are dropped when a batch is formed: they
// never reach the predictor. A batch that is being computed runs to its end.
//
// A task whose adapter's tensors are not in memory waits until they have been fetched; a shadow
// that is not in memory leaves its task without one.
class BatchScheduler {
 public:
  // All must outlive the scheduler, which is the memory's listener; without one, tasks that bring
  // no tensors are computed without.
  BatchScheduler(const BatchSchedulerOptions& options, BatchPredictor* predictor, Metrics* metrics,
                 const Clock* clock, AdapterMemory* memory = nullptr);
  // Stop(absl::InfinitePast()).
  ~BatchScheduler();
  BatchScheduler(const BatchScheduler&) = delete;
  BatchScheduler& operator=(const BatchScheduler&) = delete;

  // Hands a task over; does not block. On error, one of BatchQueue::Check's or Unavailable where
  // the scheduler is stopping, or why the adapter could not be fetched lately, `task` is as it was
  // and `done` is never called. An item longer than
  // the whole queue is taken when nothing else waits in its lane.
  absl::Status Schedule(PriceTask&& task);

  // Has the batch thread look for tasks that were handed over with `wake` false.
  void Wake();

  // What Schedule would say of such a task now; another caller may be faster. Counts as a refusal
  // where it is one.
  absl::Status Check(const BatchQueue::Request& request);
  // Whether it would be OK; counts nothing.
  bool HasRoom(const BatchQueue::Request& request);

  const BatchSchedulerOptions& options() const { return options_; }

  // Refuses new tasks, computes the waiting ones as long as `deadline` has not passed, fails the
  // rest with Unavailable and ends the threads. A batch that is being computed is always finished.
  // One caller.
  void Stop(absl::Time deadline);

 private:
  // One sequence of a batch, and the task that it is computed for.
  struct Row {
    PredictorSequence sequence;
    size_t task = 0;
    bool is_shadow = false;
  };
  // A batch that was computed.
  struct Finished {
    BatchQueue::Taken taken;
    std::vector<Row> rows;
    BatchPredictor::Results results;  // of the rows
    absl::Time start;
    absl::Time end;
    // The predictor was free so long before, though one of the tasks waited.
    absl::Duration gap;
  };

  void Run();
  void RunAnswers();
  static std::vector<Row> RowsOf(const std::vector<BatchQueue::Waiting>& batch);
  absl::Status Acquire(PriceTask* task) const;
  void AdapterFetched(const LoadedAdapter* adapter, const absl::Status& status);
  // Waits for work; false = ended.
  bool Take(BatchQueue::Taken* taken);
  Finished Compute(BatchQueue::Taken taken);
  // Waits until what was handed over before is being answered.
  void HandOver(Finished finished);
  // Waits for what is handed over; false = the batch thread has ended.
  bool TakeFinished(Finished* finished);
  // Whether the predictor would wait for the answers.
  bool IsWorthHandingOver(const Finished& finished);
  // `wakes`: whether the batch thread may wait meanwhile.
  void Answer(Finished finished, bool wakes);
  // `own`: where each task's result is.
  void CountPriced(const std::vector<BatchQueue::Waiting>& batch,
                   const BatchPredictor::Results& results, const std::vector<size_t>& own);
  // Tells the metrics how far a task's shadow is from it.
  void Compare(const PriceDistribution& price, const absl::StatusOr<PriceDistribution>& shadow,
               const PriceTask& task);
  void Drop(std::vector<BatchQueue::Waiting> dropped);
  void ReportQueue() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const BatchSchedulerOptions options_;
  BatchPredictor* const predictor_;
  Metrics* const metrics_;
  const Clock* const clock_;
  AdapterMemory* const memory_;
  // Gives a task its tensors; null = there is no memory to take them from.
  const BatchQueue::Acquire acquire_;

  mutable Mutex mutex_;
  CondVar work_;
  BatchQueue queue_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Time stop_deadline_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteFuture();

  // When the latest batch ended, or tensors came that all that waited was waiting for. The batch
  // thread's own.
  absl::Time free_since_ = absl::InfinitePast();

  Mutex finished_mutex_;
  CondVar finished_changed_;
  std::optional<Finished> finished_ ABSL_GUARDED_BY(finished_mutex_);
  // Whether answers are not all given of what was handed over.
  bool answering_ ABSL_GUARDED_BY(finished_mutex_) = false;
  bool no_more_ ABSL_GUARDED_BY(finished_mutex_) = false;

  // Last, so that they start when all else is made.
  std::thread answers_;
  std::thread thread_;
};

}  // namespace pricer
