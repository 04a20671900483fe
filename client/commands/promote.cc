#include "client/commands/promote.h"

#include <CLI/CLI.hpp>
#include <filesystem>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/exit_codes.h"
#include "base/interrupt.h"
#include "base/status_macros.h"
#include "base/temporary_directory.h"
#include "base/units.h"
#include "client/adapter_sync.h"
#include "client/batch_compare.h"
#include "client/batch_job.h"
#include "client/client.h"
#include "client/commands/common_flags.h"
#include "client/promotion.h"
#include "client/replicas.h"
#include "model/adapter_name.h"

namespace pricer {
namespace {

// Any text has a price, and this one is soon answered from the server's cache.
constexpr char kProbe[] = "which version answers?";
// For one replica to say so.
constexpr absl::Duration kProbeTimeout = absl::Seconds(5);

struct PromoteFlags {
  ConnectionFlags connection;
  PromotionOptions promotion;
  std::string version;  // "" = the newest
  std::string hold = "10m";
  std::string within = "5m";
  int replicas = 1;
  std::string input;
  std::string copy_to;
  CompareOptions gate = {.max_far_share = 0.1};

  absl::StatusOr<PromotionOptions> Promotion() const {
    PromotionOptions options = promotion;
    if (!version.empty()) {
      const std::optional<int64_t> number = ParseAdapterVersion(version);
      if (!number.has_value()) {
        return absl::InvalidArgumentError(
            absl::StrCat("version: expected a number of at least 1, got \"", version, "\""));
      }
      options.version = *number;
    }
    ASSIGN_OR_RETURN(options.hold, ParseDuration(hold));
    ASSIGN_OR_RETURN(options.timeout, ParseDuration(within));
    RETURN_IF_ERROR(options.Validate());
    return options;
  }

  AdapterSyncOptions Sync() const {
    return {.from = promotion.adapters, .to = copy_to, .name = promotion.adapter};
  }

  absl::Status Validate() const {
    RETURN_IF_ERROR(connection.Validate());
    if (!copy_to.empty()) RETURN_IF_ERROR(Sync().Validate());
    RETURN_IF_ERROR(Promotion().status());
    if (replicas < 1) {
      return absl::InvalidArgumentError(
          absl::StrCat("--replicas: expected at least 1, got ", replicas));
    }
    CompareOptions options = gate;
    options.before = "before";
    options.after = "after";
    return options.Validate();
  }
};

// The servers behind one name, each asked by itself. One thread.
class Replicas {
 public:
  Replicas(const ClientOptions& options, int least, const std::string& adapter)
      : options_(options), least_(least), adapter_(adapter) {
    options_.retry.timeout = kProbeTimeout;
    if (options_.tls.server_name.empty()) {
      options_.tls.server_name = HostOfTarget(options_.server);
    }
  }

  absl::StatusOr<std::vector<absl::StatusOr<int64_t>>> VersionsOf(const std::string& label) {
    ASSIGN_OR_RETURN(const std::vector<std::string> targets, ResolveReplicas(options_.server));
    if (static_cast<int>(targets.size()) < least_) {
      return absl::UnavailableError(absl::StrCat(options_.server, ": expected ", least_,
                                                 " servers behind it, got ", targets.size()));
    }
    std::vector<absl::StatusOr<int64_t>> versions;
    for (const std::string& target : targets) versions.push_back(VersionOf(label, target));
    return versions;
  }

 private:
  absl::StatusOr<int64_t> VersionOf(const std::string& label, const std::string& target) {
    std::unique_ptr<Client>& client = clients_[target];
    if (client == nullptr) {
      ClientOptions options = options_;
      options.server = target;
      ASSIGN_OR_RETURN(client, Client::Create(options));
    }
    v1::PredictPriceRequest request;
    request.mutable_item()->set_text(kProbe);
    request.mutable_adapter()->set_name(adapter_);
    request.mutable_adapter()->set_label(label);
    const absl::StatusOr<v1::PredictPriceResponse> response = client->PredictPrice(request);
    if (response.ok()) return response->prediction().served_by().version();
    return absl::Status(response.status().code(),
                        absl::StrCat(target, ": ", response.status().message()));
  }

  ClientOptions options_;
  const int least_;
  const std::string adapter_;
  std::map<std::string, std::unique_ptr<Client>> clients_;
};

// Prices the sample by one version.
absl::Status PriceSample(const PromoteFlags& flags, int64_t version, const std::string& output,
                         const RetryEnvironment& environment, Client* client) {
  ASSIGN_OR_RETURN(const ClientOptions connection, flags.connection.Options());
  BatchJobOptions job;
  job.input = flags.input;
  job.output = output;
  job.retry = connection.retry;
  job.adapter.set_name(flags.promotion.adapter);
  job.adapter.set_version(version);
  const auto predict = [client](const v1::BatchPredictPricesRequest& request, absl::Time deadline) {
    return client->BatchPredictPrices(request, deadline);
  };
  return RunBatchJob(job, predict, nullptr, environment).status;
}

absl::StatusOr<CompareReport> CompareSample(const PromoteFlags& flags, int64_t before,
                                            int64_t after, const RetryEnvironment& environment) {
  ASSIGN_OR_RETURN(const ClientOptions connection, flags.connection.Options());
  ASSIGN_OR_RETURN(const std::unique_ptr<Client> client, Client::Create(connection, environment));
  std::error_code ignored;
  const std::filesystem::path parent = std::filesystem::temp_directory_path(ignored);
  ASSIGN_OR_RETURN(const TemporaryDirectory directory,
                   TemporaryDirectory::Create(parent.empty() ? "." : parent.string()));
  CompareOptions options = flags.gate;
  options.before = directory.path() + "/before.jsonl";
  options.after = directory.path() + "/after.jsonl";
  RETURN_IF_ERROR(PriceSample(flags, before, options.before, environment, client.get()));
  RETURN_IF_ERROR(PriceSample(flags, after, options.after, environment, client.get()));
  ASSIGN_OR_RETURN(CompareReport report, CompareBatches(options));
  std::cout << report.ToText(options) << std::flush;
  return report;
}

// All of it, or why not.
absl::Status BringAdapter(const AdapterSyncOptions& sync) {
  ASSIGN_OR_RETURN(const AdapterSyncReport report,
                   SyncAdapters(sync, InterruptRequested,
                                [](const std::string& line) { std::cout << line << std::endl; }));
  return report.failures.empty() ? absl::OkStatus() : report.failures.front();
}

// Of the items that had a price by the version before, those that have none by the new one.
double LostShare(const CompareReport& report) {
  const int64_t priced = report.both + report.only_before;
  return priced == 0 ? 0 : static_cast<double>(report.only_before) / static_cast<double>(priced);
}

absl::StatusOr<int> Run(const PromoteFlags& flags) {
  CatchInterrupts();
  ASSIGN_OR_RETURN(const PromotionOptions options, flags.Promotion());
  ASSIGN_OR_RETURN(const ClientOptions connection, flags.connection.Options());
  RetryEnvironment environment = RetryEnvironment::System();
  environment.stop = InterruptRequested;
  Replicas replicas(connection, flags.replicas, options.adapter);
  PromotionServers servers;
  servers.versions_of_label = [&replicas](const std::string& label) {
    return replicas.VersionsOf(label);
  };
  const AdapterSyncOptions sync = flags.Sync();
  if (!sync.to.empty()) servers.bring = [&sync] { return BringAdapter(sync); };
  if (!flags.input.empty()) {
    servers.compare = [&](int64_t before, int64_t after) {
      return CompareSample(flags, before, after, environment);
    };
    servers.passes = [&flags](const CompareReport& report) {
      return report.passes(flags.gate) && LostShare(report) <= flags.gate.max_far_share;
    };
  }
  const absl::StatusOr<PromotionEnd> end =
      Promote(options, servers, environment,
              [](const std::string& line) { std::cout << line << std::endl; });
  if (absl::IsCancelled(end.status())) {
    std::cerr << "pricer: interrupted; the same command goes on" << std::endl;
    return kExitResumable;
  }
  RETURN_IF_ERROR(end.status());
  return *end == PromotionEnd::kPromoted ? kExitDone : kExitGateNotPassed;
}

}  // namespace

Command AddAdaptersPromoteCommand(CLI::App& parent) {
  auto flags = std::make_shared<PromoteFlags>();
  CLI::App* app = parent.add_subcommand(
      "promote", "brings a version from the folder to all calls, with a canary and a gate");
  flags->connection.AddTo(app, "127.0.0.1:8500");
  app->add_option("name", flags->promotion.adapter, "adapter's name")->required();
  app->add_option("version", flags->version, "its version; none = the newest in the folder");
  app->add_option("--adapters", flags->promotion.adapters,
                  "adapter folder that all servers poll; its labels.json is written")
      ->required();
  app->add_option("--copy-to", flags->copy_to,
                  "place of adapters that servers copy theirs from, brought up to --adapters after "
                  "each move: a folder, or s3://BUCKET/PREFIX");
  app->add_option("--percent", flags->promotion.percent, "of items that it answers as canary")
      ->capture_default_str();
  app->add_option("--hold", flags->hold, "for how long, before it answers all")
      ->capture_default_str()
      ->check(DurationError);
  app->add_option("--within", flags->within,
                  "every server behind --server follows each move in this time")
      ->capture_default_str()
      ->check(DurationError);
  app->add_option("--replicas", flags->replicas, "as many of them must be there at least")
      ->capture_default_str();
  app->add_option("--input", flags->input,
                  "items that both versions price, for the gate; none = no gate");
  app->add_option("--far", flags->gate.threshold, "a price that moves by more has moved far")
      ->capture_default_str();
  app->add_option(
         "--max-far-share", flags->gate.max_far_share,
         "more prices that have moved far, or that are lost: canary is taken away, exit code 4")
      ->capture_default_str();
  return {app, [flags] { return flags->Validate(); }, [flags] { return Run(*flags); }};
}

}  // namespace pricer
