#include "server/pricing_service.h"

#include <cmath>
#include <utility>

#include "base/status_macros.h"
#include "server/batch_call.h"
#include "server/grpc_status.h"
#include "server/price_request.h"
#include "server/unary_call.h"
#include "server/wire_message.h"

namespace pricer {
namespace {

// Longer items are tokenized on the pool, so that they hold up no other call.
constexpr size_t kMaxBytesTokenizedAtOnce = 4096;

class PredictPriceCall final : public UnaryCall {
 public:
  using UnaryCall::UnaryCall;

  void Start(const grpc::ByteBuffer& request_bytes) {
    const absl::Status status = Schedule(request_bytes);
    if (!status.ok()) End(status, response_);
  }

 private:
  absl::Status Schedule(const grpc::ByteBuffer& request_bytes) {
    RETURN_IF_ERROR(ParseRequest(request_bytes, &request_));
    RETURN_IF_ERROR(Prepare(request_.adapter(), request_.options()));
    if (request_.item().ByteSizeLong() <= kMaxBytesTokenizedAtOnce) return ScheduleItem();
    return pool()->Submit([this] {
      const absl::Status status = ScheduleItem();
      if (!status.ok()) End(status, response_);
    });
  }

  absl::Status ScheduleItem() {
    const auto answer = [this](const PriceCache::Outcome& outcome,
                               const PricingCall::Answering& answering) {
      const auto& distribution = outcome.result.distribution;
      if (distribution.ok()) call_.Fill(outcome, answering, response_.mutable_prediction());
      End(distribution.status(), response_);
    };
    PricingCall::PendingItem item;
    ASSIGN_OR_RETURN(const bool reused,
                     call_.Read(request_.item(), /*ask_first=*/true, answer, &item));
    if (reused) return absl::OkStatus();
    return call_.Schedule(&item, answer);
  }

  v1::PredictPriceRequest request_;
  v1::PredictPriceResponse response_;
};

class BatchPredictPricesCall final : public BatchCall {
 public:
  using BatchCall::BatchCall;

  void Start(const grpc::ByteBuffer& request_bytes) {
    absl::Status status = ParseRequest(request_bytes, &request_);
    if (status.ok()) status = Submit();
    if (!status.ok()) Ended(status);
  }

 private:
  void Ended(const absl::Status& status) override { End(status, response_); }
};

// Counts what predictions came to; answered at once.
class ReportOutcomesCall final : public UnaryCall {
 public:
  using UnaryCall::UnaryCall;

  void Start(const grpc::ByteBuffer& request_bytes) {
    v1::ReportOutcomesRequest request;
    v1::ReportOutcomesResponse response;
    absl::Status status = ParseRequest(request_bytes, &request);
    if (status.ok()) status = CheckOutcomeCount(request.outcomes_size());
    for (int i = 0; status.ok() && i < request.outcomes_size(); ++i) {
      v1::OutcomeResult* const result = response.add_results();
      result->set_id(request.outcomes(i).id());
      const absl::StatusOr<TrueOutcome> outcome =
          OutcomeFromProto(request.outcomes(i), *call_.backend().registry);
      if (outcome.ok()) {
        Count(*outcome);
      } else {
        FillError(outcome.status(), result->mutable_error());
      }
    }
    End(status, response);
  }

 private:
  void Count(const TrueOutcome& outcome) {
    const PredictedPrice& predicted = outcome.predicted;
    metrics()->OutcomeReported(predicted.adapter, std::log(outcome.price / predicted.price));
    if (!predicted.has_interval()) return;
    metrics()->IntervalReported(predicted.adapter,
                                predicted.low <= outcome.price && outcome.price <= predicted.high);
  }
};

// Says no to a call of a server that does not serve.
class RefusedStream final : public PriceStreamReactor {
 public:
  explicit RefusedStream(const absl::Status& status) { Finish(ToGrpcStatus(status)); }
  void OnDone() override { delete this; }
};

}  // namespace

void PricingService::Refuse() {
  door_.Refuse();
  streams_.EndAll();
}

grpc::ServerUnaryReactor* PricingService::PredictPrice(grpc::CallbackServerContext* context,
                                                       const grpc::ByteBuffer* request,
                                                       grpc::ByteBuffer* response) {
  return door_.StartCall<PredictPriceCall>("PredictPrice", context, *request, response);
}

grpc::ServerUnaryReactor* PricingService::BatchPredictPrices(grpc::CallbackServerContext* context,
                                                             const grpc::ByteBuffer* request,
                                                             grpc::ByteBuffer* response) {
  return door_.StartCall<BatchPredictPricesCall>("BatchPredictPrices", context, *request, response);
}

grpc::ServerUnaryReactor* PricingService::ReportOutcomes(grpc::CallbackServerContext* context,
                                                         const grpc::ByteBuffer* request,
                                                         grpc::ByteBuffer* response) {
  return door_.StartCall<ReportOutcomesCall>("ReportOutcomes", context, *request, response);
}

PriceStreamReactor* PricingService::StreamPredictPrices(grpc::CallbackServerContext* context) {
  absl::StatusOr<PricingDoor::Admitted> admitted = door_.Admit("StreamPredictPrices", context);
  if (!admitted.ok()) return new RefusedStream(admitted.status());
  return StartPriceStream(&door_, *std::move(admitted), &streams_, context);
}

}  // namespace pricer
