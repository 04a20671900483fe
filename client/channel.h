#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/client.h"

namespace pricer {

// A channel as the options say, round robin over the server's addresses; does not connect yet.
// Errors name the file that cannot be read. With `own_connections`, it shares none with other
// channels.
absl::StatusOr<std::shared_ptr<grpc::Channel>> OpenChannel(const ClientOptions& options,
                                                           bool own_connections = false);

// Shows the token, where there is one.
void AddToken(const ClientOptions& options, grpc::ClientContext* context);

// Unavailable and DeadlineExceeded name the server.
absl::Status FromGrpc(const grpc::Status& status, const std::string& server);

}  // namespace pricer
