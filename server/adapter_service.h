#pragma once

#include <atomic>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "pricer/v1/adapters.grpc.pb.h"
#include "server/access.h"
#include "server/access_tokens.h"
#include "server/adapter_registry.h"
#include "server/call_log.h"
#include "server/label_mover.h"
#include "server/metrics.h"
#include "server/worker_pool.h"

namespace pricer {

// pricer.v1.AdapterService: what the registry knows, and its labels, for operators. Moves of labels
// write files and may price golden items: they run on a pool, one after the other.
class AdapterService final
    : public v1::AdapterService::WithRawCallbackMethod_ListAdapters<
          v1::AdapterService::WithRawCallbackMethod_GetLabels<
              v1::AdapterService::WithRawCallbackMethod_SetLabel<
                  v1::AdapterService::WithRawCallbackMethod_RemoveLabel<
                      v1::AdapterService::WithRawCallbackMethod_RollbackLabel<
                          v1::AdapterService::Service>>>>> {
 public:
  // All must outlive the service. `pool` is what moves run on. Null tokens = none are asked for.
  AdapterService(const AdapterRegistry* registry, WorkerPool* pool, Metrics* metrics,
                 const TokenKeeper* tokens = nullptr)
      : access_(tokens), log_(metrics, Clock::System()), registry_(registry), pool_(pool) {}

  // Moves of labels are answered with Unavailable before. `mover` must outlive all calls.
  void Serve(LabelMover* mover) { mover_.store(mover, std::memory_order_release); }

  grpc::ServerUnaryReactor* ListAdapters(grpc::CallbackServerContext* context,
                                         const grpc::ByteBuffer* request,
                                         grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* GetLabels(grpc::CallbackServerContext* context,
                                      const grpc::ByteBuffer* request,
                                      grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* SetLabel(grpc::CallbackServerContext* context,
                                     const grpc::ByteBuffer* request,
                                     grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* RemoveLabel(grpc::CallbackServerContext* context,
                                        const grpc::ByteBuffer* request,
                                        grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* RollbackLabel(grpc::CallbackServerContext* context,
                                          const grpc::ByteBuffer* request,
                                          grpc::ByteBuffer* response) override;

 private:
  template <typename Request, typename Response>
  using Handler = absl::StatusOr<Response> (AdapterService::*)(const Request& request,
                                                               const std::string& caller) const;

  // Parses, calls `handler` and finishes the call, on this thread or on the pool.
  template <typename Request, typename Response>
  grpc::ServerUnaryReactor* Answer(const char* method, Handler<Request, Response> handler,
                                   bool on_pool, grpc::CallbackServerContext* context,
                                   const grpc::ByteBuffer* request, grpc::ByteBuffer* response);

  absl::StatusOr<v1::ListAdaptersResponse> List(const v1::ListAdaptersRequest& request,
                                                const std::string& caller) const;
  absl::StatusOr<v1::GetLabelsResponse> Get(const v1::GetLabelsRequest& request,
                                            const std::string& caller) const;
  absl::StatusOr<v1::SetLabelResponse> Set(const v1::SetLabelRequest& request,
                                           const std::string& caller) const;
  absl::StatusOr<v1::RemoveLabelResponse> Remove(const v1::RemoveLabelRequest& request,
                                                 const std::string& caller) const;
  absl::StatusOr<v1::RollbackLabelResponse> RollBack(const v1::RollbackLabelRequest& request,
                                                     const std::string& caller) const;
  absl::StatusOr<LabelMover*> Mover() const;

  const Access access_;
  CallLog log_;
  const AdapterRegistry* const registry_;
  WorkerPool* const pool_;
  std::atomic<LabelMover*> mover_{nullptr};
};

}  // namespace pricer
