#pragma once

#include "pricer/v1/pricing.grpc.pb.h"
#include "server/access_tokens.h"
#include "server/metrics.h"
#include "server/price_stream.h"
#include "server/pricing_call.h"
#include "server/unary_call.h"

namespace pricer {

// pricer.v1.PricingService. Proto in, native types, proto out. An item of PredictPrice of up to 4
// KiB is tokenized on gRPC's thread (about a millisecond at most), all else on the pool; no thread
// waits for a result: the scheduler's thread for answers finishes the call.
class PricingService final : public v1::PricingService::WithRawCallbackMethod_PredictPrice<
                                 v1::PricingService::WithRawCallbackMethod_BatchPredictPrices<
                                     v1::PricingService::WithRawCallbackMethod_StreamPredictPrices<
                                         v1::PricingService::WithRawCallbackMethod_ReportOutcomes<
                                             v1::PricingService::Service>>>> {
 public:
  // Both must outlive the service. Null tokens = none are asked for.
  explicit PricingService(Metrics* metrics, const TokenKeeper* tokens = nullptr)
      : door_(metrics, tokens) {}

  // Calls are answered with Unavailable before Serve and after Refuse. `backend` must outlive all
  // calls.
  void Serve(const PricingBackend* backend) { door_.Serve(backend); }
  // Refuses new calls; those that run go on, streams as far as what they have read.
  void Refuse();

  // What other protocols' calls come in by.
  const PricingDoor& door() const { return door_; }

  grpc::ServerUnaryReactor* PredictPrice(grpc::CallbackServerContext* context,
                                         const grpc::ByteBuffer* request,
                                         grpc::ByteBuffer* response) override;

  // Items are queued as they are tokenized, at most two batches of a call at once; the others wait
  // in the call. A call whose first item finds no room is refused as a whole.
  grpc::ServerUnaryReactor* BatchPredictPrices(grpc::CallbackServerContext* context,
                                               const grpc::ByteBuffer* request,
                                               grpc::ByteBuffer* response) override;

  PriceStreamReactor* StreamPredictPrices(grpc::CallbackServerContext* context) override;

  grpc::ServerUnaryReactor* ReportOutcomes(grpc::CallbackServerContext* context,
                                           const grpc::ByteBuffer* request,
                                           grpc::ByteBuffer* response) override;

 private:
  PricingDoor door_;
  PriceStreams streams_;
};

}  // namespace pricer
