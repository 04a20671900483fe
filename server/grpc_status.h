#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace pricer {

// The one map from our statuses to gRPC's: the same code, and the message as valid UTF-8 and short
// enough for a header.
grpc::Status ToGrpcStatus(const absl::Status& status);

// Where the status says when to try again: tells gRPC clients with a retry policy, by trailing
// metadata.
void AddRetryPushback(const absl::Status& status, grpc::CallbackServerContext* context);

}  // namespace pricer
