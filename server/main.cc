#include <unistd.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <string>

#include "absl/status/status.h"
#include "base/exit_codes.h"
#include "base/logging.h"
#include "base/open_files.h"
#include "base/status_macros.h"
#include "model/tensor_memory.h"
#include "server/listeners.h"
#include "server/model_engine.h"
#include "server/server.h"
#include "server/server_flags.h"
#include "server/stop_signal.h"

namespace {

absl::Status CheckFiles(const pricer::ServerOptions& options) {
  RETURN_IF_ERROR(options.CheckDirectories());
  RETURN_IF_ERROR(pricer::Server::CheckSecrets(options));
  return pricer::CheckModelFiles(options);
}

int Serve(const pricer::ServerOptions& options) {
  pricer::InstallStopSignal();
  pricer::RedirectGrpcLog();
  const auto server =
      pricer::Server::Start(options, pricer::LoadModelEngine, pricer::StopSignalServing);
  if (!server.ok()) {
    pricer::LogError("cannot start", {{"error", std::string(server.status().message())}});
    return pricer::kExitFailed;
  }
  pricer::WaitForStopSignal();
  pricer::LogInfo("stopping");
  const bool ended = (*server)->Stop();
  pricer::LogInfo("stopped");
  // Nobody waits for what a load that hangs would still read.
  if (!ended) _exit(pricer::kExitDone);
  return pricer::kExitDone;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Prices products over gRPC.", "pricer-server");
  pricer::ServerFlags flags;
  pricer::AddServerFlags(&flags, &app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? pricer::kExitDone : pricer::kExitWrongUsage;
  }
  if (const absl::Status status = flags.options.Validate(); !status.ok()) {
    std::cerr << status.message() << "\n";
    return pricer::kExitWrongUsage;
  }
  if (flags.check_config) {
    if (const absl::Status status = CheckFiles(flags.options); !status.ok()) {
      std::cerr << status.message() << "\n";
      return pricer::kExitFailed;
    }
    std::cout << app.config_to_str(/*default_also=*/true);
    return pricer::kExitDone;
  }
  pricer::TensorMemory::Install();
  pricer::RaiseOpenFileLimit();  // for callers' connections
  return Serve(flags.options);
}
