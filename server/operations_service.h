#pragma once

#include "absl/status/statusor.h"
#include "pricer/v1/operations.grpc.pb.h"
#include "server/access.h"
#include "server/access_tokens.h"
#include "server/metrics.h"

namespace pricer {

// pricer.v1.OperationsService: what operators ask of the process itself.
class OperationsService final : public v1::OperationsService::WithRawCallbackMethod_SetLogLevel<
                                    v1::OperationsService::Service> {
 public:
  // Both must outlive the service. Null tokens = none are asked for.
  OperationsService(Metrics* metrics, const TokenKeeper* tokens)
      : access_(tokens), metrics_(metrics) {}

  grpc::ServerUnaryReactor* SetLogLevel(grpc::CallbackServerContext* context,
                                        const grpc::ByteBuffer* request,
                                        grpc::ByteBuffer* response) override;

 private:
  absl::Status Set(const grpc::CallbackServerContext& context,
                   const grpc::ByteBuffer& request_bytes, grpc::ByteBuffer* response_bytes) const;

  const Access access_;
  Metrics* const metrics_;
};

}  // namespace pricer
