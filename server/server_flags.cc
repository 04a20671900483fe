#include "server/server_flags.h"

#include <CLI/CLI.hpp>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "base/build_info.h"
#include "base/check.h"
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

// Whole MiB by default, or "0".
void AddBytes(CLI::App* app, const std::string& name, int64_t* value, const std::string& help) {
  const auto parse = [](const std::string& text) -> absl::StatusOr<int64_t> {
    if (text == "0") return 0;
    return ParseBytes(text);
  };
  app->add_option_function<std::string>(
         name, [value, parse](const std::string& text) { *value = *parse(text); }, help)
      ->default_str(absl::StrCat(*value >> 20, "MiB"))
      ->check(
          [parse](const std::string& text) { return std::string(parse(text).status().message()); });
}

// Empty = fine.
std::string QuotaProblem(const std::string& text) {
  const size_t equals = text.rfind('=');
  double rate = 0;
  const bool parses = equals != std::string::npos && equals > 0 &&
                      absl::SimpleAtod(text.substr(equals + 1), &rate) && rate > 0;
  return parses ? "" : absl::StrCat("expected CALLER=TOKENS a second, got \"", text, "\"");
}

std::map<std::string, double> Quotas(const std::vector<std::string>& texts) {
  std::map<std::string, double> quotas;
  for (const std::string& text : texts) {
    const size_t equals = text.rfind('=');
    PRICER_CHECK(absl::SimpleAtod(text.substr(equals + 1), &quotas[text.substr(0, equals)]));
  }
  return quotas;
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
                  "HOST:PORT of the adapter service, on loopback or unix:PATH unless operators "
                  "show certificates");
  app->add_option("--health-listen", o.health_listen, "HOST:PORT of the health service");
  app->add_option("--metrics-listen", o.metrics_listen, "HOST:PORT of Prometheus metrics");
  app->add_option("--tls-cert", o.tls_cert,
                  "PEM file: certificates of the pricing and admin listeners; none: no TLS");
  app->add_option("--tls-key", o.tls_key, "PEM file: the key of the first of them");
  app->add_option("--tls-client-ca", o.tls_client_ca,
                  "PEM file: authorities of certificates that callers must show");
  app->add_option("--admin-tls-client-ca", o.admin_tls_client_ca,
                  "The same for the admin listener alone");
  app->add_option("--tokens", o.tokens, "JSON file of bearer tokens that callers must show one of");
  app->add_flag("--allow-insecure-tokens", o.allow_insecure_tokens, "Take tokens without TLS");
  app->add_option("--nf4-cache", o.nf4_cache,
                  "Folder that keeps the base in NF4, so that only the first start quantizes it");
  app->add_option("--weights", o.weights, "Kind of the base's linear weights: nf4, bf16, fp32");
  app->add_option("--dtype", o.dtype, "What is computed in: auto, fp32, bf16");
  app->add_option("--device", o.device, "What computes: auto, cpu, cuda");
  app->add_option("--threads", o.threads, "Threads of a forward pass; 0: one per core");
  app->add_option("--max-batch-tokens", o.scheduler.max_batch_tokens,
                  "Tokens of one batch, rows of price trees included");
  app->add_option("--max-queue-tokens", o.scheduler.max_queue_tokens,
                  "Tokens of each lane that may wait");
  app->add_option("--min-bulk-share", o.scheduler.min_bulk_share,
                  "Least share of the tokens computed that bulk work gets while it waits");
  app->add_option_function<std::vector<std::string>>(
         "--quota",
         [&o](const std::vector<std::string>& texts) { o.scheduler.quotas = Quotas(texts); },
         "CALLER=TOKENS: most tokens a second of a caller, token:NAME, cert:NAME or an address "
         "such as "
         "ipv4:192.0.2.7; several")
      ->check([](const std::string& text) { return QuotaProblem(text); });
  AddBytes(
      app, "--adapter-memory", &o.adapter_memory.host_bytes,
      "Memory for adapters' tensors; those that find no room are read when they are asked for");
  AddBytes(app, "--adapter-device-memory", &o.adapter_memory.device_bytes,
           "The same of a GPU's memory");
  app->add_option("--metrics-adapters", o.metrics_adapters,
                  "Adapter versions with metrics of their own; the others share \"other\"");
  AddBytes(app, "--price-cache", &o.price_cache_bytes,
           "Memory for prices of items that were computed; 0: none");
  AddDuration(app, "--poll-interval", &o.poll_interval, "Between looks at the folder");
  AddDuration(app, "--self-check-interval", &o.self_check_interval,
              "Between golden items that are priced again for readiness; 0s: never");
  AddDuration(app, "--self-check-timeout", &o.self_check_timeout,
              "For one of them, before readiness says no");
  AddDuration(app, "--max-connection-age", &o.max_connection_age,
              "After which a caller's connection is made anew, so that it finds new servers; 0s: "
              "never");
  AddDuration(app, "--grace-period", &o.grace_period,
              "To finish calls after SIGTERM; a tenth of it, at most 1s, still takes new ones");
  app->add_flag("--check-config", flags->check_config,
                "Check options, base and folders, print the options as TOML and exit")
      ->configurable(false);
}

}  // namespace pricer
