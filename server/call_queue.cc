#include "server/call_queue.h"

#include <algorithm>
#include <utility>

#include "base/status_macros.h"

namespace pricer {
namespace {

// Of one call in the scheduler at once. Keeps all batches full and leaves the queue to other
// callers.
constexpr int64_t kMaxBatchesPerCall = 2;

}  // namespace

absl::Status CallQueue::Add(PricingCall::PendingItem item, const PricingCall::DoneFunction& done) {
  std::vector<Failed> failed;
  {
    MutexLock lock(&mutex_);
    if (most_tokens_ == 0) {
      const int64_t tokens = item.task.tokens();
      RETURN_IF_ERROR(call_->Schedule(&item, WhenDone(tokens, done)));
      most_tokens_ = queued_tokens_ = tokens;
      return absl::OkStatus();
    }
    waiting_.push_back({std::move(item), done});
    failed = Advance();
  }
  Fail(failed);
  return absl::OkStatus();
}

PricingCall::DoneFunction CallQueue::WhenDone(int64_t tokens, PricingCall::DoneFunction done) {
  return [this, tokens, done = std::move(done)](PriceCache::Outcome outcome,
                                                const PricingCall::Answering& answering) {
    std::vector<Failed> failed;
    {
      MutexLock lock(&mutex_);
      queued_tokens_ -= tokens;
      failed = Advance();
    }
    // Before this item's own: the call may end with that.
    Fail(failed);
    done(std::move(outcome), answering);
  };
}

std::vector<CallQueue::Failed> CallQueue::Advance() {
  std::vector<Failed> failed;
  BatchScheduler& scheduler = *call_->backend().scheduler;
  const int64_t share = kMaxBatchesPerCall * scheduler.options().max_batch_tokens;
  while (!waiting_.empty()) {
    Waiting& next = waiting_.front();
    PriceTask& task = next.item.task;
    const int64_t tokens = task.tokens();
    const int64_t queued = queued_tokens_ + tokens;
    task.replaces = queued_tokens_ == 0 || queued <= most_tokens_;
    if (!task.replaces && (queued > share || !scheduler.HasRoom(call_->RequestOf(task)))) break;
    absl::Status status = call_->Abandoned();
    if (status.ok()) status = call_->Schedule(&next.item, WhenDone(tokens, next.done));
    if (absl::IsResourceExhausted(status)) break;
    if (status.ok()) {
      queued_tokens_ = queued;
      most_tokens_ = std::max(most_tokens_, queued);
    } else {
      failed.push_back({std::move(status), next.item.answering, std::move(next.done)});
    }
    waiting_.pop_front();
  }
  return failed;
}

void CallQueue::Fail(const std::vector<Failed>& failed) {
  for (const Failed& item : failed) {
    item.done({{item.status, absl::ZeroDuration(), absl::ZeroDuration()}, {}}, item.answering);
  }
}

}  // namespace pricer
