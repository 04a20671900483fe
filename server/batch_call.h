#pragma once

#include <atomic>

#include "absl/status/status.h"
#include "pricer/v1/pricing.pb.h"
#include "server/call_queue.h"
#include "server/unary_call.h"

namespace pricer {

// A call with many items, whatever its protocol. Items are queued as they are tokenized. Those that
// find no room wait in the call until earlier ones of it are done.
class BatchCall : public UnaryCall {
 public:
  using UnaryCall::UnaryCall;

 protected:
  // Prices the items of `request_`. On error, Ended is never called.
  absl::Status Submit();
  // All items have their results in `response_`, or nobody waits for them. Finishes the call, once.
  virtual void Ended(const absl::Status& status) = 0;

  v1::BatchPredictPricesRequest request_;
  v1::BatchPredictPricesResponse response_;

 private:
  void ScheduleAll();
  void ItemDone(const PriceCache::Outcome& outcome, const PricingCall::Answering& answering,
                v1::ItemResult* result);
  void ItemFailed(const absl::Status& status, v1::ItemResult* result);
  void OneDone();

  CallQueue queue_{&call_};
  // Items without a result, and one more for the loop that queues them.
  std::atomic<int> pending_{0};
};

}  // namespace pricer
