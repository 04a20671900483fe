#pragma once

#include "absl/status/status.h"
#include "pricer/v1/adapters.grpc.pb.h"
#include "server/adapter_registry.h"
#include "server/metrics.h"

namespace pricer {

// pricer.v1.AdapterService: what the registry knows, for operators.
class AdapterService final
    : public v1::AdapterService::WithRawCallbackMethod_ListAdapters<v1::AdapterService::Service> {
 public:
  // Both must outlive the service.
  AdapterService(const AdapterRegistry* registry, Metrics* metrics)
      : registry_(registry), metrics_(metrics) {}

  grpc::ServerUnaryReactor* ListAdapters(grpc::CallbackServerContext* context,
                                         const grpc::ByteBuffer* request,
                                         grpc::ByteBuffer* response) override;

 private:
  absl::Status List(const grpc::ByteBuffer& request_bytes, grpc::ByteBuffer* response_bytes) const;

  const AdapterRegistry* const registry_;
  Metrics* const metrics_;
};

}  // namespace pricer
