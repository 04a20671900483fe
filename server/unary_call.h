#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <atomic>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/access.h"
#include "server/access_tokens.h"
#include "server/grpc_status.h"
#include "server/metrics.h"
#include "server/pricing_call.h"
#include "server/wire_message.h"

namespace pricer {

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

// Lets calls of the pricing listener in, or says why not. Thread-safe.
class PricingDoor {
 public:
  // A call that may begin.
  struct Admitted {
    const PricingBackend* backend = nullptr;
    std::string caller;
  };

  // Both must outlive the door. Null tokens = none are asked for.
  PricingDoor(Metrics* metrics, const TokenKeeper* tokens) : access_(tokens), metrics_(metrics) {}

  // Unavailable before Serve and after Refuse. `backend` must outlive all calls.
  void Serve(const PricingBackend* backend) { backend_.store(backend, std::memory_order_release); }
  void Refuse() { refusing_.store(true, std::memory_order_relaxed); }

  // Unavailable as above.
  absl::StatusOr<const PricingBackend*> Backend() const;
  // A refusal is counted as the end of a call of `method`.
  absl::StatusOr<Admitted> Admit(absl::string_view method,
                                 const grpc::CallbackServerContext& context) const;

  // Starts a call, which deletes itself when gRPC is done with it, or refuses it.
  template <typename Call>
  grpc::ServerUnaryReactor* StartCall(absl::string_view method,
                                      grpc::CallbackServerContext* context,
                                      const grpc::ByteBuffer& request,
                                      grpc::ByteBuffer* response) const {
    absl::StatusOr<Admitted> admitted = Admit(method, *context);
    if (!admitted.ok()) {
      grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
      reactor->Finish(ToGrpcStatus(admitted.status()));
      return reactor;
    }
    Call* const call = new Call(method, admitted->backend, std::move(admitted->caller), metrics_,
                                context, response);
    call->Start(request);
    return call;
  }

  Metrics* metrics() const { return metrics_; }
  const Access& access() const { return access_; }

 private:
  const Access access_;
  Metrics* const metrics_;
  std::atomic<const PricingBackend*> backend_{nullptr};
  std::atomic<bool> refusing_{false};
};

}  // namespace pricer
