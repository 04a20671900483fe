#include "server/listeners.h"

#include <grpc/support/log.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/impl/server_builder_option.h>
#include <grpcpp/impl/server_builder_plugin.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/logging.h"
#include "base/steady_clock.h"
#include "server/log_sampler.h"

namespace pricer {
namespace {

// Linking gRPC's reflection library adds it to every server; this takes it out of one.
class WithoutReflection final : public grpc::ServerBuilderOption {
 public:
  void UpdateArguments(grpc::ChannelArguments* /*arguments*/) override {}
  void UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>* plugins) override {
    std::erase_if(*plugins, [](const std::unique_ptr<grpc::ServerBuilderPlugin>& plugin) {
      return plugin->name() == grpc::reflection::ProtoServerReflectionPlugin().name();
    });
  }
};

void LogGrpcLine(gpr_log_func_args* line) {
  // Whoever connects can cause lines, such as those of handshakes that fail. Lives for ever.
  static auto* const sampler = new LogSampler(SteadyClock());
  const std::string source = absl::StrCat(line->file, ":", line->line);
  const int64_t dropped = sampler->TakeLine(source);
  if (dropped < 0) return;
  std::vector<LogField> fields = {{"source", source}};
  if (dropped > 0) fields.push_back({"not_logged", absl::StrCat(dropped)});
  switch (line->severity) {
    case GPR_LOG_SEVERITY_DEBUG:
      return Log(LogLevel::kDebug, line->message, fields);
    case GPR_LOG_SEVERITY_INFO:
      return Log(LogLevel::kInfo, line->message, fields);
    default:
      // What matters comes back to the caller as a status; gRPC's errors are its own account of it.
      return Log(LogLevel::kWarning, line->message, fields);
  }
}

}  // namespace

absl::StatusOr<Listener> Listen(const ListenerOptions& options,
                                const std::vector<grpc::Service*>& services) {
  Listener listener;
  grpc::ServerBuilder builder;
  // By default two processes can listen on one port and share its callers.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.SetMaxReceiveMessageSize(options.max_request_bytes);
  if (options.max_connection_age < absl::InfiniteDuration()) {
    builder.AddChannelArgument(
        GRPC_ARG_MAX_CONNECTION_AGE_MS,
        static_cast<int>(absl::ToInt64Milliseconds(options.max_connection_age)));
  }
  listener.credentials =
      options.credentials != nullptr ? options.credentials : grpc::InsecureServerCredentials();
  builder.AddListeningPort(options.address, listener.credentials, &listener.port);
  if (!options.reflection) builder.SetOption(std::make_unique<WithoutReflection>());
  for (grpc::Service* const service : services) builder.RegisterService(service);
  listener.server = builder.BuildAndStart();
  if (listener.server == nullptr || listener.port == 0) {
    return absl::FailedPreconditionError(
        absl::StrCat(options.flag, " ", options.address,
                     ": cannot listen there; is the port taken by another process?"));
  }
  return listener;
}

void RedirectGrpcLog() {
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  gpr_set_log_function(LogGrpcLine);
}

}  // namespace pricer
