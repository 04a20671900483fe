#include "server/batch_scheduler.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <utility>

#include "base/check.h"
#include "base/status_macros.h"

namespace pricer {
namespace {

// A fetch may hang; its tasks are dropped all the same when their callers have gone.
constexpr absl::Duration kParkedLook = absl::Milliseconds(20);

// Answers bring tasks that follow them; an idle batch thread is not woken for each.
constexpr size_t kAnswersBetweenWakes = 32;

// Of a batch that took less, another thread would begin with the answers when they are given.
constexpr absl::Duration kWorthHandingOver = absl::Milliseconds(1);

absl::Status StoppingError() { return absl::UnavailableError("the server is stopping"); }

void LetGo(PriceTask* task) {
  task->tensors.reset();
  task->adapter.reset();
  task->shadow.reset();
}

// What became of a task that no batch computed.
std::pair<absl::Status, DropReason> ReasonToDrop(const BatchQueue::Waiting& waiting,
                                                 absl::Time now) {
  const PriceTask& task = waiting.task;
  // First, because gRPC cancels a call when its deadline passes.
  if (task.expired(now)) {
    return {absl::DeadlineExceededError("the deadline passed before the item was computed"),
            DropReason::kExpired};
  }
  if (task.gone()) return {absl::CancelledError("the caller has gone"), DropReason::kCancelled};
  if (waiting.failure.ok()) return {StoppingError(), DropReason::kStopping};
  return {waiting.failure, waiting.failed_by};
}

}  // namespace

BatchScheduler::BatchScheduler(const BatchSchedulerOptions& options, BatchPredictor* predictor,
                               Metrics* metrics, const Clock* clock, AdapterMemory* memory)
    : options_(options),
      predictor_(predictor),
      metrics_(metrics),
      clock_(clock),
      memory_(memory),
      acquire_(memory == nullptr ? BatchQueue::Acquire()
                                 : [this](PriceTask* task) { return Acquire(task); }),
      queue_(options),
      answers_([this] { RunAnswers(); }),
      thread_([this] { Run(); }) {
  if (memory_ == nullptr) return;
  memory_->SetListener([this](const LoadedAdapter* adapter, const absl::Status& status) {
    AdapterFetched(adapter, status);
  });
}

BatchScheduler::~BatchScheduler() {
  if (memory_ != nullptr) memory_->SetListener(nullptr);
  Stop(absl::InfinitePast());
}

// Those of one adapter together, tasks in their order.
std::vector<BatchScheduler::Row> BatchScheduler::RowsOf(
    const std::vector<BatchQueue::Waiting>& batch) {
  std::vector<Row> rows;
  rows.reserve(batch.size());
  for (size_t i = 0; i < batch.size(); ++i) {
    const PriceTask& task = batch[i].task;
    rows.push_back({{task.ids, task.adapter.get(), task.tensors.get()}, i});
    if (!task.shadow.has_value()) continue;
    const ShadowPrompt& shadow = *task.shadow;
    rows.push_back(
        {{shadow.ids, shadow.adapter.get(), shadow.tensors.get()}, i, /*is_shadow=*/true});
  }
  // By tensors too: a version may have been evicted and fetched again between two tasks.
  std::stable_sort(rows.begin(), rows.end(), [](const Row& a, const Row& b) {
    const std::less<> less;
    if (a.sequence.adapter != b.sequence.adapter) {
      return less(a.sequence.adapter, b.sequence.adapter);
    }
    return less(a.sequence.tensors, b.sequence.tensors);
  });
  return rows;
}

absl::Status BatchScheduler::Acquire(PriceTask* task) const {
  if (task->tensors == nullptr && task->adapter->has_tensors()) {
    ASSIGN_OR_RETURN(task->tensors, memory_->Get(task->adapter));
  }
  if (!task->shadow.has_value()) return absl::OkStatus();
  // What waits to be fetched holds nothing that its own fetch may have to wait for.
  if (task->adapter->has_tensors() && task->tensors == nullptr) return absl::OkStatus();
  ShadowPrompt& shadow = *task->shadow;
  const absl::StatusOr<TensorsHandle> tensors = memory_->Get(shadow.adapter);
  if (tensors.ok() && *tensors != nullptr) {
    shadow.tensors = *tensors;
  } else {
    task->shadow.reset();
    metrics_->ShadowFailed();
  }
  return absl::OkStatus();
}

void BatchScheduler::AdapterFetched(const LoadedAdapter* adapter, const absl::Status& status) {
  MutexLock lock(&mutex_);
  if (status.ok()) {
    queue_.Unpark(adapter, acquire_);
  } else {
    queue_.FailParked(adapter, status);
  }
  ReportQueue();
  work_.Signal();
}

absl::Status BatchScheduler::Schedule(PriceTask&& task) {
  PRICER_CHECK(!task.ids.empty() && task.adapter != nullptr);
  const absl::Time now = clock_->Now();
  const bool wake = task.wake;
  MutexLock lock(&mutex_);
  BatchQueue::Refusal refusal{StoppingError(), RefusalReason::kStopping};
  if (!stopping_) refusal = queue_.Admit(std::move(task), now, acquire_);
  if (!refusal.status.ok()) {
    metrics_->AdmissionRefused(refusal.reason);
    return refusal.status;
  }
  ReportQueue();
  if (wake) work_.Signal();
  return absl::OkStatus();
}

void BatchScheduler::Wake() {
  MutexLock lock(&mutex_);
  work_.Signal();
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
  if (!thread_.joinable()) return;
  thread_.join();
  answers_.join();
}

void BatchScheduler::Run() {
  predictor_->PrepareThread();
  BatchQueue::Taken taken;
  while (Take(&taken)) {
    Drop(std::exchange(taken.dropped, {}));
    if (taken.batch.empty()) {
      if (memory_ != nullptr) memory_->Released();
      continue;
    }
    Finished finished = Compute(std::exchange(taken, {}));
    if (IsWorthHandingOver(finished)) {
      HandOver(std::move(finished));
    } else {
      Answer(std::move(finished), /*wakes=*/false);
    }
  }
  MutexLock lock(&finished_mutex_);
  no_more_ = true;
  finished_changed_.SignalAll();
}

void BatchScheduler::RunAnswers() {
  Finished finished;
  while (TakeFinished(&finished)) {
    Answer(std::exchange(finished, {}), /*wakes=*/true);
    Wake();
  }
}

bool BatchScheduler::IsWorthHandingOver(const Finished& finished) {
  {
    // Answers come in the order of the batches.
    MutexLock lock(&finished_mutex_);
    if (answering_) return true;
  }
  if (finished.end - finished.start < kWorthHandingOver) return false;
  MutexLock lock(&mutex_);
  return queue_.ready();
}

void BatchScheduler::HandOver(Finished finished) {
  MutexLock lock(&finished_mutex_);
  while (finished_.has_value()) finished_changed_.Wait(&finished_mutex_);
  finished_.emplace(std::move(finished));
  answering_ = true;
  finished_changed_.SignalAll();
}

bool BatchScheduler::TakeFinished(Finished* finished) {
  MutexLock lock(&finished_mutex_);
  answering_ = finished_.has_value();
  while (!finished_.has_value() && !no_more_) finished_changed_.Wait(&finished_mutex_);
  if (!finished_.has_value()) return false;
  *finished = *std::move(finished_);
  finished_.reset();
  finished_changed_.SignalAll();
  return true;
}

bool BatchScheduler::Take(BatchQueue::Taken* taken) {
  MutexLock lock(&mutex_);
  bool waits_for_adapter = false;
  while (!queue_.ready() && !stopping_) {
    waits_for_adapter |= queue_.has_parked();
    if (!queue_.has_parked()) {
      work_.Wait(&mutex_);
    } else if (work_.WaitWithTimeout(&mutex_, kParkedLook)) {
      break;
    }
  }
  if (queue_.empty()) return false;
  const absl::Time now = clock_->Now();
  if (waits_for_adapter) free_since_ = now;
  // What is parked when nothing else waits is not waited for.
  const bool give_up = stopping_ && (now >= stop_deadline_ || !queue_.ready());
  *taken = queue_.Take(now, give_up);
  if (!taken->batch.empty()) queue_.BatchStarted(taken->tokens, now);
  ReportQueue();
  return true;
}

void BatchScheduler::Drop(std::vector<BatchQueue::Waiting> dropped) {
  const absl::Time now = clock_->Now();
  for (BatchQueue::Waiting& waiting : dropped) {
    const auto [status, reason] = ReasonToDrop(waiting, now);
    metrics_->TaskDropped(reason);
    LetGo(&waiting.task);
    waiting.task.done({status, now - waiting.admitted, absl::ZeroDuration()});
  }
}

BatchScheduler::Finished BatchScheduler::Compute(BatchQueue::Taken taken) {
  Finished finished;
  finished.taken = std::move(taken);
  std::vector<BatchQueue::Waiting>& batch = finished.taken.batch;
  finished.rows = RowsOf(batch);
  std::vector<PredictorSequence> sequences;
  sequences.reserve(finished.rows.size());
  for (const Row& row : finished.rows) sequences.push_back(row.sequence);

  finished.start = clock_->Now();
  const auto first = std::min_element(batch.begin(), batch.end(), [](const auto& a, const auto& b) {
    return a.admitted < b.admitted;
  });
  finished.gap = finished.start - std::max(free_since_, first->admitted);
  finished.results = predictor_->PredictBatch(sequences);
  finished.end = clock_->Now();
  free_since_ = finished.end;
  PRICER_CHECK(finished.results.size() == finished.rows.size());
  MutexLock lock(&mutex_);
  queue_.BatchEnded(finished.taken.tokens, finished.end - finished.start, finished.end);
  return finished;
}

void BatchScheduler::Answer(Finished finished, bool wakes) {
  std::vector<BatchQueue::Waiting>& batch = finished.taken.batch;
  const std::vector<Row>& rows = finished.rows;
  const absl::Duration compute_time = finished.end - finished.start;
  metrics_->BatchComputed(static_cast<int64_t>(rows.size()), finished.taken.tokens, compute_time);
  metrics_->BatchFollowed(finished.gap);
  for (const BatchQueue::Waiting& waiting : batch) {
    metrics_->TaskWaited(waiting.task.lane, finished.start - waiting.admitted);
  }
  metrics_->TasksLate(std::count_if(
      batch.begin(), batch.end(),
      [end = finished.end](const auto& waiting) { return waiting.task.expired(end); }));

  // Of each task, where its own result and its shadow's are.
  std::vector<size_t> own(batch.size());
  std::vector<size_t> shadow(batch.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    (rows[i].is_shadow ? shadow : own)[rows[i].task] = i;
  }
  CountPriced(batch, finished.results, own);
  for (size_t i = 0; i < batch.size(); ++i) {
    PriceTask& task = batch[i].task;
    BatchPredictor::Results::value_type& result = finished.results[own[i]];
    if (result.ok() && task.shadow.has_value()) Compare(*result, finished.results[shadow[i]], task);
    // Before `done`: whoever waits for it may rely on being the last to hold the adapter.
    LetGo(&task);
    task.done({std::move(result), finished.start - batch[i].admitted, compute_time});
    // What came in its place, with `wake` false.
    if (wakes && (i + 1) % kAnswersBetweenWakes == 0) Wake();
  }
  if (memory_ != nullptr) memory_->Released();
}

void BatchScheduler::CountPriced(const std::vector<BatchQueue::Waiting>& batch,
                                 const BatchPredictor::Results& results,
                                 const std::vector<size_t>& own) {
  // Metrics look series up by their labels, which is slow for each item of a large batch.
  std::map<std::pair<const LoadedAdapter*, Lane>, int64_t> counts;
  for (size_t i = 0; i < batch.size(); ++i) {
    const PriceTask& task = batch[i].task;
    if (results[own[i]].ok() && !task.internal) ++counts[{task.adapter.get(), task.lane}];
  }
  for (const auto& [key, count] : counts) {
    metrics_->ItemsPriced(key.second, key.first->key, count);
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
