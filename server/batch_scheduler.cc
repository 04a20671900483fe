#include "server/batch_scheduler.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>

#include "base/check.h"

namespace pricer {
namespace {

absl::Status StoppingError() { return absl::UnavailableError("the server is stopping"); }

// One sequence of a batch, and the task that it is computed for.
struct Row {
  PredictorSequence sequence;
  size_t task = 0;
  bool is_shadow = false;
};

// Those of one adapter together, tasks in their order.
std::vector<Row> RowsOf(const std::vector<BatchQueue::Waiting>& batch) {
  std::vector<Row> rows;
  rows.reserve(batch.size());
  for (size_t i = 0; i < batch.size(); ++i) {
    const PriceTask& task = batch[i].task;
    rows.push_back({{task.ids, task.adapter.get()}, i});
    if (!task.shadow.has_value()) continue;
    rows.push_back({{task.shadow->ids, task.shadow->adapter.get()}, i, /*is_shadow=*/true});
  }
  std::stable_sort(rows.begin(), rows.end(), [](const Row& a, const Row& b) {
    return std::less<>()(a.sequence.adapter, b.sequence.adapter);
  });
  return rows;
}

// What became of a task that no batch computed.
absl::Status ReasonToDrop(const PriceTask& task, absl::Time now) {
  // First, because gRPC cancels a call when its deadline passes.
  if (task.expired(now)) {
    return absl::DeadlineExceededError("the deadline passed before the item was computed");
  }
  if (task.gone()) return absl::CancelledError("the caller has gone");
  return StoppingError();
}

}  // namespace

BatchScheduler::BatchScheduler(const BatchSchedulerOptions& options, BatchPredictor* predictor,
                               Metrics* metrics, const Clock* clock)
    : options_(options),
      predictor_(predictor),
      metrics_(metrics),
      clock_(clock),
      queue_(options),
      thread_([this] { Run(); }) {}

BatchScheduler::~BatchScheduler() { Stop(absl::InfinitePast()); }

absl::Status BatchScheduler::Schedule(PriceTask&& task) {
  PRICER_CHECK(!task.ids.empty() && task.adapter != nullptr);
  const absl::Time now = clock_->Now();
  MutexLock lock(&mutex_);
  BatchQueue::Refusal refusal{StoppingError(), RefusalReason::kStopping};
  if (!stopping_) refusal = queue_.Admit(std::move(task), now);
  if (!refusal.status.ok()) {
    metrics_->AdmissionRefused(refusal.reason);
    return refusal.status;
  }
  ReportQueue();
  work_.Signal();
  return absl::OkStatus();
}

absl::Status BatchScheduler::Check(const BatchQueue::Request& request) {
  const absl::Time now = clock_->Now();
  MutexLock lock(&mutex_);
  BatchQueue::Refusal refusal{StoppingError(), RefusalReason::kStopping};
  if (!stopping_) refusal = queue_.Check(request, now);
  if (!refusal.status.ok()) metrics_->AdmissionRefused(refusal.reason);
  return refusal.status;
}

bool BatchScheduler::HasRoom(const BatchQueue::Request& request) {
  const absl::Time now = clock_->Now();
  MutexLock lock(&mutex_);
  return !stopping_ && queue_.Check(request, now).status.ok();
}

void BatchScheduler::ReportQueue() {
  for (Lane lane : kLanes) metrics_->QueueChanged(lane, queue_.tokens(lane));
  metrics_->QueueItemsChanged(queue_.items());
}

void BatchScheduler::Stop(absl::Time deadline) {
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    stop_deadline_ = deadline;
    work_.Signal();
  }
  if (thread_.joinable()) thread_.join();
}

void BatchScheduler::Run() {
  predictor_->PrepareThread();
  BatchQueue::Taken taken;
  while (Take(&taken)) {
    Drop(std::exchange(taken.dropped, {}));
    if (!taken.batch.empty()) Compute(std::move(taken));
  }
}

bool BatchScheduler::Take(BatchQueue::Taken* taken) {
  MutexLock lock(&mutex_);
  while (queue_.empty() && !stopping_) work_.Wait(&mutex_);
  if (queue_.empty()) return false;
  const absl::Time now = clock_->Now();
  *taken = queue_.Take(now, /*give_up=*/stopping_ && now >= stop_deadline_);
  if (!taken->batch.empty()) queue_.BatchStarted(taken->tokens, now);
  ReportQueue();
  return true;
}

void BatchScheduler::Drop(std::vector<BatchQueue::Waiting> dropped) {
  const absl::Time now = clock_->Now();
  for (BatchQueue::Waiting& waiting : dropped) {
    waiting.task.adapter.reset();
    waiting.task.shadow.reset();
    waiting.task.done(
        {ReasonToDrop(waiting.task, now), now - waiting.admitted, absl::ZeroDuration()});
  }
}

void BatchScheduler::Compute(BatchQueue::Taken taken) {
  std::vector<BatchQueue::Waiting>& batch = taken.batch;
  const std::vector<Row> rows = RowsOf(batch);
  std::vector<PredictorSequence> sequences;
  sequences.reserve(rows.size());
  for (const Row& row : rows) sequences.push_back(row.sequence);

  const absl::Time start = clock_->Now();
  for (const BatchQueue::Waiting& waiting : batch) metrics_->TaskWaited(start - waiting.admitted);
  BatchPredictor::Results results = predictor_->PredictBatch(sequences);
  const absl::Duration compute_time = clock_->Now() - start;
  PRICER_CHECK(results.size() == rows.size());
  metrics_->BatchComputed(static_cast<int64_t>(rows.size()), taken.tokens, compute_time);
  {
    MutexLock lock(&mutex_);
    queue_.BatchEnded(taken.tokens, compute_time);
  }

  // Of each task, where its own result and its shadow's are.
  std::vector<size_t> own(batch.size());
  std::vector<size_t> shadow(batch.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    (rows[i].is_shadow ? shadow : own)[rows[i].task] = i;
  }
  for (size_t i = 0; i < batch.size(); ++i) {
    PriceTask& task = batch[i].task;
    BatchPredictor::Results::value_type& result = results[own[i]];
    if (result.ok() && !task.internal) metrics_->ItemPriced(task.lane, task.adapter->key);
    if (result.ok() && task.shadow.has_value()) Compare(*result, results[shadow[i]], task);
    // Before `done`: whoever waits for it may rely on being the last to hold the adapter.
    task.adapter.reset();
    task.shadow.reset();
    task.done({std::move(result), start - batch[i].admitted, compute_time});
  }
}

void BatchScheduler::Compare(const PriceDistribution& price,
                             const absl::StatusOr<PriceDistribution>& shadow,
                             const PriceTask& task) {
  if (!shadow.ok()) {
    metrics_->ShadowFailed();
    return;
  }
  metrics_->ShadowCompared(task.shadow->adapter->key,
                           std::log(shadow->Quantile(0.5) / price.Quantile(0.5)));
}

}  // namespace pricer
