#pragma once

#include "pricer/v1/adapters.grpc.pb.h"
#include "server/adapter_registry.h"
#include "server/metrics.h"

namespace pricer {

// pricer.v1.AdapterService: what the registry knows, for operators.
class AdapterService final : public v1::AdapterService::CallbackService {
 public:
  // Both must outlive the service.
  AdapterService(const AdapterRegistry* registry, Metrics* metrics)
      : registry_(registry), metrics_(metrics) {}

  grpc::ServerUnaryReactor* ListAdapters(grpc::CallbackServerContext* context,
                                         const v1::ListAdaptersRequest* request,
                                         v1::ListAdaptersResponse* response) override;

 private:
  const AdapterRegistry* const registry_;
  Metrics* const metrics_;
};

}  // namespace pricer
