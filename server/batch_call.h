#pragma once

#include <google/protobuf/arena.h>

#include <atomic>
#include <vector>

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

  // Of the messages: a thousand items are freed at once.
  google::protobuf::Arena arena_;
  v1::BatchPredictPricesRequest& request_ =
      *google::protobuf::Arena::CreateMessage<v1::BatchPredictPricesRequest>(&arena_);
  v1::BatchPredictPricesResponse& response_ =
      *google::protobuf::Arena::CreateMessage<v1::BatchPredictPricesResponse>(&arena_);

 private:
  struct PricedItem {
    PriceCache::Outcome outcome;
    PricingCall::Answering answering;
  };

  void ScheduleAll();
  void ItemFailed(const absl::Status& status, int item);
  void OneDone();
  // All items are done: writes the response.
  void Answer();

  CallQueue queue_{&call_};
  std::vector<PricedItem> items_;
  // Items without a result, and one more for the loop that queues them.
  std::atomic<int> pending_{0};
};

}  // namespace pricer
