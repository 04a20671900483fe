#include <unistd.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <string>

#include "absl/status/status.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "server/listeners.h"
#include "server/model_engine.h"
#include "server/server.h"
#include "server/server_flags.h"
#include "server/stop_signal.h"

namespace {

constexpr int kExitFailed = 1;
constexpr int kExitUsage = 2;

absl::Status CheckFiles(const pricer::ServerOptions& options) {
  RETURN_IF_ERROR(options.CheckDirectories());
  return pricer::CheckModelFiles(options);
}

int Serve(const pricer::ServerOptions& options) {
  pricer::InstallStopSignal();
  pricer::RedirectGrpcLog();
  const auto server =
      pricer::Server::Start(options, pricer::LoadModelEngine, pricer::StopSignalServing);
  if (!server.ok()) {
    pricer::LogError("cannot start", {{"error", std::string(server.status().message())}});
    return kExitFailed;
  }
  pricer::WaitForStopSignal();
  pricer::LogInfo("stopping");
  const bool ended = (*server)->Stop();
  pricer::LogInfo("stopped");
  // Nobody waits for what a load that hangs would still read.
  if (!ended) _exit(0);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Prices products over gRPC.", "pricer-server");
  pricer::ServerFlags flags;
  pricer::AddServerFlags(&flags, &app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kExitUsage;
  }
  if (const absl::Status status = flags.options.Validate(); !status.ok()) {
    std::cerr << status.message() << "\n";
    return kExitUsage;
  }
  if (flags.check_config) {
    if (const absl::Status status = CheckFiles(flags.options); !status.ok()) {
      std::cerr << status.message() << "\n";
      return kExitFailed;
    }
    std::cout << app.config_to_str(/*default_also=*/true);
    return 0;
  }
  return Serve(flags.options);
}
