#pragma once

#include <atomic>
#include <functional>

#include "absl/status/status.h"
#include "inference/grpc_service.grpc.pb.h"
#include "server/adapter_operator.h"
#include "server/adapter_registry.h"
#include "server/unary_call.h"
#include "server/worker_pool.h"

namespace pricer {

// inference.GRPCInferenceService on the pricing listener, or on the admin listener, where the
// repository may be asked for. ModelInfer is a batch call like BatchPredictPrices, by the same
// rules.
class OpenInferenceService final
    : public inference::GRPCInferenceService::WithRawCallbackMethod_ServerLive<
          inference::GRPCInferenceService::WithRawCallbackMethod_ServerReady<
              inference::GRPCInferenceService::WithRawCallbackMethod_ModelReady<
                  inference::GRPCInferenceService::WithRawCallbackMethod_ServerMetadata<
                      inference::GRPCInferenceService::WithRawCallbackMethod_ModelMetadata<
                          inference::GRPCInferenceService::WithRawCallbackMethod_ModelInfer<
                              inference::GRPCInferenceService::
                                  WithRawCallbackMethod_RepositoryIndex<
                                      inference::GRPCInferenceService::
                                          WithRawCallbackMethod_RepositoryModelLoad<
                                              inference::GRPCInferenceService::
                                                  WithRawCallbackMethod_RepositoryModelUnload<
                                                      inference::GRPCInferenceService::
                                                          Service>>>>>>>>> {
 public:
  enum class Listener { kPricing, kAdmin };

  // All must outlive the service. `is_ready` says what readiness does.
  OpenInferenceService(Listener listener, const PricingDoor* door, const AdapterRegistry* registry,
                       std::function<bool()> is_ready);

  // Loads and unloads are answered with Unavailable before, and run on `pool`. Once; both must
  // outlive all calls.
  void ServeRepository(AdapterOperator* adapters, WorkerPool* pool) {
    pool_ = pool;
    adapters_.store(adapters, std::memory_order_release);
  }

  grpc::ServerUnaryReactor* ServerLive(grpc::CallbackServerContext* context,
                                       const grpc::ByteBuffer* request,
                                       grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* ServerReady(grpc::CallbackServerContext* context,
                                        const grpc::ByteBuffer* request,
                                        grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* ModelReady(grpc::CallbackServerContext* context,
                                       const grpc::ByteBuffer* request,
                                       grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* ServerMetadata(grpc::CallbackServerContext* context,
                                           const grpc::ByteBuffer* request,
                                           grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* ModelMetadata(grpc::CallbackServerContext* context,
                                          const grpc::ByteBuffer* request,
                                          grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* ModelInfer(grpc::CallbackServerContext* context,
                                       const grpc::ByteBuffer* request,
                                       grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* RepositoryIndex(grpc::CallbackServerContext* context,
                                            const grpc::ByteBuffer* request,
                                            grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* RepositoryModelLoad(grpc::CallbackServerContext* context,
                                                const grpc::ByteBuffer* request,
                                                grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* RepositoryModelUnload(grpc::CallbackServerContext* context,
                                                  const grpc::ByteBuffer* request,
                                                  grpc::ByteBuffer* response) override;

 private:
  // Parses, has `fill` answer, and finishes the call. `permission`: none is asked for where null.
  template <typename Request, typename Response, typename Fill>
  grpc::ServerUnaryReactor* Answer(const char* method, const Permission* permission,
                                   grpc::CallbackServerContext* context,
                                   const grpc::ByteBuffer& request, grpc::ByteBuffer* response,
                                   const Fill& fill) const;
  // The same on the pool, for what changes the repository; `change` gets the message and who asks.
  template <typename Request, typename Response, typename Change>
  grpc::ServerUnaryReactor* ChangeRepository(const char* method,
                                             grpc::CallbackServerContext* context,
                                             const grpc::ByteBuffer& request,
                                             grpc::ByteBuffer* response, Change change) const;
  // PermissionDenied on the pricing listener.
  absl::Status CheckAdminListener() const;

  const Listener listener_;
  const PricingDoor* const door_;
  const AdapterRegistry* const registry_;
  const std::function<bool()> is_ready_;
  WorkerPool* pool_ = nullptr;  // set before adapters_
  std::atomic<AdapterOperator*> adapters_{nullptr};
};

}  // namespace pricer
