#pragma once

#include <string>

#include "absl/status/status.h"
#include "base/steady_clock.h"
#include "pricer/v1/operations.grpc.pb.h"
#include "server/access.h"
#include "server/access_tokens.h"
#include "server/call_log.h"
#include "server/metrics.h"

namespace pricer {

// pricer.v1.OperationsService: what operators ask of the process itself.
class OperationsService final : public v1::OperationsService::WithRawCallbackMethod_SetLogLevel<
                                    v1::OperationsService::Service> {
 public:
  // Both must outlive the service. Null tokens = none are asked for.
  OperationsService(Metrics* metrics, const TokenKeeper* tokens)
      : access_(tokens), log_(metrics, SteadyClock()) {}

  grpc::ServerUnaryReactor* SetLogLevel(grpc::CallbackServerContext* context,
                                        const grpc::ByteBuffer* request,
                                        grpc::ByteBuffer* response) override;

 private:
  absl::Status Set(const std::string& caller, const grpc::ByteBuffer& request_bytes,
                   grpc::ByteBuffer* response_bytes) const;

  const Access access_;
  CallLog log_;
};

}  // namespace pricer
