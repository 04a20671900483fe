#pragma once

#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace pricer {

struct Listener {
  // Outlives the server.
  std::shared_ptr<grpc::ServerCredentials> credentials;
  std::unique_ptr<grpc::Server> server;
  // The one that was bound, where port 0 was asked for.
  int port = 0;
};

struct ListenerOptions {
  // The flag that the address comes from, for messages.
  std::string flag;
  // HOST:PORT.
  std::string address;
  int max_request_bytes = 4 * 1024 * 1024;
  // Null = no TLS.
  std::shared_ptr<grpc::ServerCredentials> credentials = nullptr;
  // A connection is ended this long after it was made, up to a tenth more or less, once its calls
  // are done: so that clients look again where servers are.
  absl::Duration max_connection_age = absl::InfiniteDuration();
  // Lets tools ask for the protocol.
  bool reflection = true;
};

// A running gRPC server. `services` must outlive it. FailedPrecondition names flag and address
// where it cannot be bound, above all because another process has the port.
absl::StatusOr<Listener> Listen(const ListenerOptions& options,
                                const std::vector<grpc::Service*>& services);

// Sends gRPC's own log lines to ours. Once, before anything else of gRPC.
void RedirectGrpcLog();

}  // namespace pricer
