#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <atomic>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/steady_clock.h"
#include "server/access.h"
#include "server/access_tokens.h"
#include "server/call_deadline.h"
#include "server/call_log.h"
#include "server/grpc_status.h"
#include "server/metrics.h"
#include "server/pricing_call.h"
#include "server/wire_message.h"

namespace pricer {

// Lets calls of the pricing listener in, or says why not. Thread-safe.
class PricingDoor {
 public:
  // A call that may begin.
  struct Admitted {
    const PricingBackend* backend = nullptr;
    CallTags tags;
  };

  // Both must outlive the door. Null tokens = none are asked for.
  PricingDoor(Metrics* metrics, const TokenKeeper* tokens)
      : access_(tokens), metrics_(metrics), log_(metrics, SteadyClock()) {}

  // Unavailable before Serve and after Refuse. `backend` must outlive all calls.
  void Serve(const PricingBackend* backend) { backend_.store(backend, std::memory_order_release); }
  void Refuse() { refusing_.store(true, std::memory_order_relaxed); }

  // Unavailable as above.
  absl::StatusOr<const PricingBackend*> Backend() const;
  // A refusal is counted as the end of a call of `method`.
  absl::StatusOr<Admitted> Admit(absl::string_view method,
                                 grpc::CallbackServerContext* context) const;
  // Counts and logs the end of a call that was admitted.
  void Ended(absl::string_view method, const absl::Status& status, const CallTags& tags) const {
    log_.Ended(method, status, tags);
  }

  // Starts a call, which deletes itself when gRPC is done with it, or refuses it.
  template <typename Call>
  grpc::ServerUnaryReactor* StartCall(absl::string_view method,
                                      grpc::CallbackServerContext* context,
                                      const grpc::ByteBuffer& request,
                                      grpc::ByteBuffer* response) const {
    absl::StatusOr<Admitted> admitted = Admit(method, context);
    if (!admitted.ok()) {
      grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
      reactor->Finish(ToGrpcStatus(admitted.status()));
      return reactor;
    }
    Call* const call = new Call(method, this, *std::move(admitted), context, response);
    call->Start(request);
    return call;
  }

  Metrics* metrics() const { return metrics_; }
  const Access& access() const { return access_; }

 private:
  const Access access_;
  Metrics* const metrics_;
  mutable CallLog log_;
  std::atomic<const PricingBackend*> backend_{nullptr};
  std::atomic<bool> refusing_{false};
};

// A call with one answer. Lives from the call's start to OnDone, which gRPC calls after Finish
// alone; whoever finishes the call is therefore the last to touch it.
class UnaryCall : public grpc::ServerUnaryReactor {
 public:
  UnaryCall(absl::string_view method, const PricingDoor* door, PricingDoor::Admitted admitted,
            grpc::CallbackServerContext* context, grpc::ByteBuffer* response_bytes)
      : call_(admitted.backend, door->metrics()),
        method_(method),
        door_(door),
        tags_(std::move(admitted.tags)),
        context_(context),
        response_bytes_(response_bytes) {}

  void OnCancel() override { call_.Cancel(); }
  void OnDone() override { delete this; }

 protected:
  absl::Status Prepare(const v1::AdapterSpec& adapter, const v1::PredictOptions& options) {
    return call_.Prepare(adapter, options, CallDeadline(*context_), tags_.caller);
  }

  // `response` counts where `status` is OK.
  void End(absl::Status status, const google::protobuf::Message& response) {
    if (status.ok()) status = SerializeResponse(response, response_bytes_);
    door_->Ended(method_, status, tags_);
    AddRetryPushback(status, context_);
    call_.Release();
    Finish(ToGrpcStatus(status));
  }

  Metrics* metrics() const { return door_->metrics(); }
  WorkerPool* pool() const { return call_.backend().pool; }

  PricingCall call_;

 private:
  const absl::string_view method_;
  const PricingDoor* const door_;
  const CallTags tags_;
  grpc::CallbackServerContext* const context_;
  grpc::ByteBuffer* const response_bytes_;
};

}  // namespace pricer
