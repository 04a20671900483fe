#include <unistd.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/build_info.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "base/units.h"
#include "server/listeners.h"
#include "server/model_engine.h"
#include "server/server.h"
#include "server/server_options.h"
#include "server/stop_signal.h"

namespace {

constexpr int kExitFailed = 1;
constexpr int kExitUsage = 2;

struct Flags {
  pricer::ServerOptions options;
  std::string poll_interval = "1s";
  std::string grace_period = "30s";
  bool check_config = false;
};

// Empty = fine, as CLI11 wants it.
std::string DurationError(const std::string& text) {
  return std::string(pricer::ParseDuration(text).status().message());
}

void AddFlags(Flags* flags, CLI::App* app) {
  pricer::ServerOptions& o = flags->options;
  app->set_version_flag("--version",
                        absl::StrCat(pricer::BuildVersion(), " (", pricer::BuildCommit(), ")"));
  app->set_config("--config", "", "Options as TOML, under the names of the flags");
  app->allow_config_extras(CLI::config_extras_mode::error);
  app->option_defaults()->always_capture_default();
  app->add_option("--base", o.base, "Checkpoint directory of the base model")->required();
  app->add_option("--adapters", o.adapters, "Adapter folder, watched for new versions")->required();
  app->add_option("--default-adapter", o.default_adapter, "Answers requests that name none");
  app->add_option("--listen", o.listen, "HOST:PORT of pricing; port 0: any");
  app->add_option("--admin-listen", o.admin_listen,
                  "HOST:PORT of the adapter service, on loopback or unix:PATH");
  app->add_option("--health-listen", o.health_listen, "HOST:PORT of the health service");
  app->add_option("--metrics-listen", o.metrics_listen, "HOST:PORT of Prometheus metrics");
  app->add_option("--weights", o.weights, "Kind of the base's linear weights: nf4, bf16, fp32");
  app->add_option("--dtype", o.dtype, "What is computed in: auto, fp32, bf16");
  app->add_option("--device", o.device, "What computes: cpu");
  app->add_option("--threads", o.threads, "Threads of a forward pass; 0: one per core");
  app->add_option("--max-batch-tokens", o.scheduler.max_batch_tokens, "Tokens of one batch");
  app->add_option("--max-queue-tokens", o.scheduler.max_queue_tokens, "Tokens that may wait");
  app->add_option("--poll-interval", flags->poll_interval, "Between looks at the folder")
      ->check(DurationError);
  app->add_option("--grace-period", flags->grace_period,
                  "To finish calls after SIGTERM; a tenth of it, at most 1s, still takes new ones")
      ->check(DurationError);
  app->add_flag("--check-config", flags->check_config,
                "Check options, base and folders, print the options as TOML and exit")
      ->configurable(false);
}

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
  Flags flags;
  AddFlags(&flags, &app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kExitUsage;
  }
  flags.options.poll_interval = *pricer::ParseDuration(flags.poll_interval);
  flags.options.grace_period = *pricer::ParseDuration(flags.grace_period);
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
