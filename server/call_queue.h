#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "base/mutex.h"
#include "server/pricing_call.h"

namespace pricer {

// The items of one call with many, on their way to the scheduler: what there is room for is there,
// in its queue and in this call's share of it, and the others wait here until earlier ones are
// done. Thread-safe. Must outlive its items, and `call` it.
class CallQueue {
 public:
  explicit CallQueue(const PricingCall* call) : call_(call) {}
  CallQueue(const CallQueue&) = delete;
  CallQueue& operator=(const CallQueue&) = delete;

  // Queues the item now or later; `done` is called once, perhaps before this returns. An error, the
  // scheduler's, comes only where no item was queued before; then `done` is never called. A call
  // that has had room once keeps it, though others have filled the queue.
  absl::Status Add(PricingCall::PendingItem item, const PricingCall::DoneFunction& done);

 private:
  struct Waiting {
    PricingCall::PendingItem item;
    PricingCall::DoneFunction done;
  };
  // An item whose `done` is to be called when the lock is free.
  struct Failed {
    absl::Status status;
    PricingCall::Answering answering;
    PricingCall::DoneFunction done;
  };

  // Hands over what there is room for. While items wait, others of the call are queued or computed,
  // and their end brings them here.
  std::vector<Failed> Advance() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  PricingCall::DoneFunction WhenDone(int64_t tokens, PricingCall::DoneFunction done);
  static void Fail(const std::vector<Failed>& failed);

  const PricingCall* const call_;

  Mutex mutex_;
  std::deque<Waiting> waiting_ ABSL_GUARDED_BY(mutex_);
  // Of this call's tasks that the scheduler has: now, and at most so far.
  int64_t queued_tokens_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t most_tokens_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace pricer
