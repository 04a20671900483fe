#include "server/pricing_service.h"

#include <atomic>
#include <utility>

#include "base/status_macros.h"
#include "server/call_queue.h"
#include "server/grpc_status.h"
#include "server/price_request.h"
#include "server/wire_message.h"

namespace pricer {
namespace {

// Longer items are tokenized on the pool, so that they hold up no other call.
constexpr size_t kMaxBytesTokenizedAtOnce = 4096;

// A call with one answer. Lives from the call's start to OnDone, which gRPC calls after Finish
// alone; whoever finishes the call is therefore the last to touch it.
class UnaryCall : public grpc::ServerUnaryReactor {
 public:
  UnaryCall(absl::string_view method, const PricingBackend* backend, std::string caller,
            Metrics* metrics, grpc::CallbackServerContext* context,
            grpc::ByteBuffer* response_bytes)
      : call_(backend, metrics),
        method_(method),
        caller_(std::move(caller)),
        metrics_(metrics),
        context_(context),
        response_bytes_(response_bytes) {}

  void OnCancel() override { call_.Cancel(); }
  void OnDone() override { delete this; }

 protected:
  absl::Status Prepare(const v1::AdapterSpec& adapter, const v1::PredictOptions& options) {
    return call_.Prepare(adapter, options, absl::FromChrono(context_->deadline()), caller_);
  }

  // `response` counts where `status` is OK.
  void End(absl::Status status, const google::protobuf::Message& response) {
    if (status.ok()) status = SerializeResponse(response, response_bytes_);
    metrics_->CallEnded(method_, status.code());
    AddRetryPushback(status, context_);
    call_.Release();
    Finish(ToGrpcStatus(status));
  }

  WorkerPool* pool() const { return call_.backend().pool; }

  PricingCall call_;

 private:
  const absl::string_view method_;
  const std::string caller_;
  Metrics* const metrics_;
  grpc::CallbackServerContext* const context_;
  grpc::ByteBuffer* const response_bytes_;
};

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

// Items are queued as they are tokenized. Those that find no room wait in the call until earlier
// ones of it are done.
class BatchPredictPricesCall final : public UnaryCall {
 public:
  using UnaryCall::UnaryCall;

  void Start(const grpc::ByteBuffer& request_bytes) {
    const absl::Status status = Submit(request_bytes);
    if (!status.ok()) End(status, response_);
  }

 private:
  absl::Status Submit(const grpc::ByteBuffer& request_bytes) {
    RETURN_IF_ERROR(ParseRequest(request_bytes, &request_));
    RETURN_IF_ERROR(CheckItemCount(request_.items_size()));
    RETURN_IF_ERROR(Prepare(request_.adapter(), request_.options()));
    // All made here, so that each is then written by one thread alone.
    for (const v1::Item& item : request_.items()) response_.add_results()->set_id(item.id());
    pending_.store(request_.items_size() + 1, std::memory_order_relaxed);
    return pool()->Submit([this] { ScheduleAll(); });
  }

  void ScheduleAll() {
    bool awaits = false;  // results of items that other calls are computing
    for (int i = 0; i < request_.items_size(); ++i) {
      v1::ItemResult* const result = response_.mutable_results(i);
      const auto done = [this, result](const PriceCache::Outcome& outcome,
                                       const PricingCall::Answering& answering) {
        ItemDone(outcome, answering, result);
      };
      PricingCall::PendingItem item;
      const absl::StatusOr<bool> reused =
          call_.Read(request_.items(i), /*ask_first=*/false, done, &item);
      if (!reused.ok()) ItemFailed(reused.status(), result);
      awaits = awaits || (reused.ok() && *reused);
      if (!reused.ok() || *reused) continue;
      const absl::Status refused = queue_.Add(std::move(item), done);
      if (refused.ok()) continue;
      if (!awaits) {
        End(refused, response_);
        return;
      }
      ItemFailed(refused, result);
    }
    OneDone();
  }

  void ItemDone(const PriceCache::Outcome& outcome, const PricingCall::Answering& answering,
                v1::ItemResult* result) {
    if (!outcome.result.distribution.ok()) {
      ItemFailed(outcome.result.distribution.status(), result);
      return;
    }
    call_.Fill(outcome, answering, result->mutable_prediction());
    OneDone();
  }

  void ItemFailed(const absl::Status& status, v1::ItemResult* result) {
    FillError(status, result->mutable_error());
    OneDone();
  }

  void OneDone() {
    if (pending_.fetch_sub(1, std::memory_order_acq_rel) > 1) return;
    End(call_.Abandoned(), response_);
  }

  CallQueue queue_{&call_};
  v1::BatchPredictPricesRequest request_;
  v1::BatchPredictPricesResponse response_;
  // Items without a result, and one more for the loop that queues them.
  std::atomic<int> pending_{0};
};

// Says no to a call of a server that does not serve.
class RefusedStream final : public PriceStreamReactor {
 public:
  explicit RefusedStream(const absl::Status& status) { Finish(ToGrpcStatus(status)); }
  void OnDone() override { delete this; }
};

grpc::ServerUnaryReactor* RefusedCall(const absl::Status& status,
                                      grpc::CallbackServerContext* context) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  reactor->Finish(ToGrpcStatus(status));
  return reactor;
}

}  // namespace

void PricingService::Refuse() {
  refusing_.store(true, std::memory_order_relaxed);
  streams_.EndAll();
}

absl::StatusOr<const PricingBackend*> PricingService::Backend() const {
  if (refusing_.load(std::memory_order_relaxed)) {
    return absl::UnavailableError("the server is stopping");
  }
  const PricingBackend* const backend = backend_.load(std::memory_order_acquire);
  if (backend == nullptr) return absl::UnavailableError("the server is starting");
  return backend;
}

absl::StatusOr<PricingService::Admitted> PricingService::Admit(
    absl::string_view method, const grpc::CallbackServerContext& context) {
  absl::StatusOr<Admitted> admitted = Admitted();
  absl::StatusOr<std::string> caller = access_.Authenticate(context, Permission::kPredict);
  const absl::StatusOr<const PricingBackend*> backend = Backend();
  if (!caller.ok()) {
    admitted = caller.status();
  } else if (!backend.ok()) {
    admitted = backend.status();
  } else {
    admitted = Admitted{*backend, *std::move(caller)};
  }
  if (!admitted.ok()) metrics_->CallEnded(method, admitted.status().code());
  return admitted;
}

template <typename Call>
grpc::ServerUnaryReactor* PricingService::StartCall(absl::string_view method,
                                                    grpc::CallbackServerContext* context,
                                                    const grpc::ByteBuffer& request,
                                                    grpc::ByteBuffer* response) {
  absl::StatusOr<Admitted> admitted = Admit(method, *context);
  if (!admitted.ok()) return RefusedCall(admitted.status(), context);
  // Deletes itself when gRPC is done with it.
  Call* const call =
      new Call(method, admitted->backend, std::move(admitted->caller), metrics_, context, response);
  call->Start(request);
  return call;
}

grpc::ServerUnaryReactor* PricingService::PredictPrice(grpc::CallbackServerContext* context,
                                                       const grpc::ByteBuffer* request,
                                                       grpc::ByteBuffer* response) {
  return StartCall<PredictPriceCall>("PredictPrice", context, *request, response);
}

grpc::ServerUnaryReactor* PricingService::BatchPredictPrices(grpc::CallbackServerContext* context,
                                                             const grpc::ByteBuffer* request,
                                                             grpc::ByteBuffer* response) {
  return StartCall<BatchPredictPricesCall>("BatchPredictPrices", context, *request, response);
}

PriceStreamReactor* PricingService::StreamPredictPrices(grpc::CallbackServerContext* context) {
  const absl::StatusOr<Admitted> admitted = Admit("StreamPredictPrices", *context);
  if (!admitted.ok()) return new RefusedStream(admitted.status());
  return StartPriceStream(admitted->backend, admitted->caller, &streams_, metrics_, context);
}

}  // namespace pricer
