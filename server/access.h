#pragma once

#include <grpcpp/server_context.h>

#include <string>

#include "absl/status/statusor.h"
#include "server/access_tokens.h"
#include "server/call_log.h"

namespace pricer {

// Who may call what. Asked at the top of every handler: in this version of gRPC a processor of
// credentials' metadata ends the process where a listener has no TLS. Thread-safe.
class Access {
 public:
  // `tokens` must outlive this; null = whoever reaches a listener may call.
  explicit Access(const TokenKeeper* tokens) : tokens_(tokens) {}

  // Name of the caller: "token:NAME", else "cert:NAME" of its certificate, else its address.
  // Unauthenticated or PermissionDenied where tokens are wanted.
  absl::StatusOr<std::string> Authenticate(const grpc::CallbackServerContext& context,
                                           Permission permission) const;

 private:
  const TokenKeeper* const tokens_;
};

// What the call is known by, but for its caller. The answer carries the request id as trailing
// metadata.
CallTags TagsOf(grpc::CallbackServerContext* context);

}  // namespace pricer
