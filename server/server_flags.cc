#include "server/server_flags.h"

#include <CLI/CLI.hpp>

#include "absl/time/time.h"
#include "base/build_info.h"
#include "base/config_flag.h"
#include "base/units.h"

namespace pricer {
namespace {

void AddDuration(CLI::App* app, const std::string& name, absl::Duration* value,
                 const std::string& help) {
  app->add_option_function<std::string>(
         name, [value](const std::string& text) { *value = *ParseDuration(text); }, help)
      ->default_str(absl::FormatDuration(*value))
      // Empty = fine.
      ->check([](const std::string& text) {
        return std::string(ParseDuration(text).status().message());
      });
}

}  // namespace

void AddServerFlags(ServerFlags* flags, CLI::App* app) {
  ServerOptions& o = flags->options;
  app->set_version_flag("--version", VersionText("pricer-server"));
  AddConfigFlag(app, "TOML file with options, under the names of the flags");
  app->option_defaults()->always_capture_default();
  app->add_option("--base", o.base, "Checkpoint directory of the base model")->required();
  app->add_option("--adapters", o.adapters, "Adapter folder, watched for new versions")->required();
  app->add_option("--default-adapter", o.default_adapter, "Answers requests that name none");
  app->add_option("--base-preset", o.base_preset,
                  "Prompt of the base without an adapter: default, reference");
  app->add_option("--base-currency", o.base_currency, "Its currency, an ISO code");
  app->add_option("--listen", o.listen, "HOST:PORT of pricing; port 0: any");
  app->add_option("--admin-listen", o.admin_listen,
                  "HOST:PORT of the adapter service, on loopback or unix:PATH");
  app->add_option("--health-listen", o.health_listen, "HOST:PORT of the health service");
  app->add_option("--metrics-listen", o.metrics_listen, "HOST:PORT of Prometheus metrics");
  app->add_option("--nf4-cache", o.nf4_cache,
                  "Folder that keeps the base in NF4, so that only the first start quantizes it");
  app->add_option("--weights", o.weights, "Kind of the base's linear weights: nf4, bf16, fp32");
  app->add_option("--dtype", o.dtype, "What is computed in: auto, fp32, bf16");
  app->add_option("--device", o.device, "What computes: auto, cpu, cuda");
  app->add_option("--threads", o.threads, "Threads of a forward pass; 0: one per core");
  app->add_option("--max-batch-tokens", o.scheduler.max_batch_tokens,
                  "Tokens of one batch, rows of price trees included");
  app->add_option("--max-queue-tokens", o.scheduler.max_queue_tokens, "Tokens that may wait");
  AddDuration(app, "--poll-interval", &o.poll_interval, "Between looks at the folder");
  AddDuration(app, "--grace-period", &o.grace_period,
              "To finish calls after SIGTERM; a tenth of it, at most 1s, still takes new ones");
  app->add_flag("--check-config", flags->check_config,
                "Check options, base and folders, print the options as TOML and exit")
      ->configurable(false);
}

}  // namespace pricer
