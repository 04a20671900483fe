#include "server/batch_scheduler.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace pricer {
namespace {

constexpr absl::Duration kMinRetryDelay = absl::Milliseconds(50);
constexpr absl::Duration kMaxRetryDelay = absl::Seconds(10);

absl::Status StoppingError() { return absl::UnavailableError("the server is stopping"); }

absl::Status ExpiredError() {
  return absl::DeadlineExceededError("the deadline passed before the item was computed");
}

bool IsCancelled(const PriceTask& task) {
  return task.cancelled != nullptr && task.cancelled->load(std::memory_order_relaxed);
}

// What became of a task that no batch computed.
absl::Status ReasonToDrop(const PriceTask& task, absl::Time now) {
  // First, because gRPC cancels a call when its deadline passes.
  if (task.deadline <= now) return ExpiredError();
  if (IsCancelled(task)) return absl::CancelledError("the caller has gone");
  return StoppingError();
}

RefusalReason RefusalReasonOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kResourceExhausted:
      return RefusalReason::kQueueFull;
    case absl::StatusCode::kDeadlineExceeded:
      return RefusalReason::kExpired;
    default:
      return RefusalReason::kStopping;
  }
}

}  // namespace

absl::Status BatchSchedulerOptions::Validate() const {
  if (max_batch_tokens < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("--max-batch-tokens: expected at least 1, got ", max_batch_tokens));
  }
  if (max_queue_tokens < max_batch_tokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("--max-queue-tokens: expected at least --max-batch-tokens (", max_batch_tokens,
                     "), got ", max_queue_tokens));
  }
  return absl::OkStatus();
}

BatchScheduler::BatchScheduler(const BatchSchedulerOptions& options, BatchPredictor* predictor,
                               Metrics* metrics, const Clock* clock)
    : options_(options), predictor_(predictor), metrics_(metrics), clock_(clock), thread_([this] {
        Run();
      }) {}

BatchScheduler::~BatchScheduler() { Stop(absl::InfinitePast()); }

absl::Status BatchScheduler::Schedule(PriceTask&& task) {
  PRICER_CHECK(!task.ids.empty() && task.adapter != nullptr);
  const absl::Time now = clock_->Now();
  MutexLock lock(&mutex_);
  if (absl::Status status = AdmitLocked(task, now); !status.ok()) {
    metrics_->AdmissionRefused(RefusalReasonOf(status));
    return status;
  }
  queue_tokens_ += task.tokens();
  const bool ahead = task.internal;
  queue_.insert(ahead ? queue_.begin() : queue_.end(), Waiting{std::move(task), now});
  metrics_->QueueChanged(static_cast<int64_t>(queue_.size()), queue_tokens_);
  work_.Signal();
  return absl::OkStatus();
}

absl::Status BatchScheduler::AdmitLocked(const PriceTask& task, absl::Time now) const {
  if (stopping_) return StoppingError();
  if (task.deadline <= now) return ExpiredError();
  if (task.internal || task.replaces || HasRoomLocked(task.tokens())) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat("the queue is full: ", queue_tokens_, " of ",
                                                   options_.max_queue_tokens, " tokens wait"));
}

bool BatchScheduler::HasRoomLocked(int64_t tokens) const {
  return queue_.empty() || queue_tokens_ + tokens <= options_.max_queue_tokens;
}

bool BatchScheduler::HasRoom(int64_t tokens) const {
  MutexLock lock(&mutex_);
  return HasRoomLocked(tokens);
}

absl::Duration BatchScheduler::RetryDelay() const {
  MutexLock lock(&mutex_);
  return std::clamp(last_compute_time_, kMinRetryDelay, kMaxRetryDelay);
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
  std::vector<Waiting> batch;
  std::vector<Waiting> dropped;
  while (TakeBatch(&batch, &dropped)) {
    Drop(std::exchange(dropped, {}));
    if (!batch.empty()) Compute(std::exchange(batch, {}));
  }
}

bool BatchScheduler::TakeBatch(std::vector<Waiting>* batch, std::vector<Waiting>* dropped) {
  MutexLock lock(&mutex_);
  while (queue_.empty() && !stopping_) work_.Wait(&mutex_);
  if (queue_.empty()) return false;
  TakeFromQueue(clock_->Now(), batch, dropped);
  metrics_->QueueChanged(static_cast<int64_t>(queue_.size()), queue_tokens_);
  return true;
}

void BatchScheduler::TakeFromQueue(absl::Time now, std::vector<Waiting>* batch,
                                   std::vector<Waiting>* dropped) {
  const bool give_up = stopping_ && now >= stop_deadline_;
  int64_t batch_tokens = 0;
  while (!queue_.empty()) {
    Waiting& next = queue_.front();
    const int64_t tokens = next.task.tokens();
    const bool drop = give_up || IsCancelled(next.task) || next.task.deadline <= now;
    if (!drop && !batch->empty() && batch_tokens + tokens > options_.max_batch_tokens) break;
    if (!drop) batch_tokens += tokens;
    queue_tokens_ -= tokens;
    (drop ? dropped : batch)->push_back(std::move(next));
    queue_.pop_front();
  }
}

void BatchScheduler::Drop(std::vector<Waiting> dropped) {
  const absl::Time now = clock_->Now();
  for (Waiting& waiting : dropped) {
    waiting.task.adapter.reset();
    waiting.task.done(
        {ReasonToDrop(waiting.task, now), now - waiting.admitted, absl::ZeroDuration()});
  }
}

void BatchScheduler::Compute(std::vector<Waiting> batch) {
  std::stable_sort(batch.begin(), batch.end(), [](const Waiting& a, const Waiting& b) {
    return std::less<>()(a.task.adapter.get(), b.task.adapter.get());
  });
  std::vector<PredictorSequence> sequences;
  sequences.reserve(batch.size());
  int64_t tokens = 0;
  for (const Waiting& waiting : batch) {
    sequences.push_back({waiting.task.ids, waiting.task.adapter.get()});
    tokens += waiting.task.tokens();
  }

  const absl::Time start = clock_->Now();
  for (const Waiting& waiting : batch) metrics_->TaskWaited(start - waiting.admitted);
  BatchPredictor::Results results = predictor_->PredictBatch(sequences);
  const absl::Duration compute_time = clock_->Now() - start;
  PRICER_CHECK(results.size() == batch.size());
  metrics_->BatchComputed(static_cast<int64_t>(batch.size()), tokens, compute_time);
  {
    MutexLock lock(&mutex_);
    last_compute_time_ = compute_time;
  }

  for (size_t i = 0; i < batch.size(); ++i) {
    PriceTask& task = batch[i].task;
    if (results[i].ok() && !task.internal) metrics_->ItemPriced(task.adapter->key);
    // Before `done`: whoever waits for it may rely on being the last to hold the adapter.
    task.adapter.reset();
    task.done({std::move(results[i]), start - batch[i].admitted, compute_time});
  }
}

}  // namespace pricer
