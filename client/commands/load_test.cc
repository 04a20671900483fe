#include "client/commands/load_test.h"

#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/exit_codes.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "base/status_macros.h"
#include "base/units.h"
#include "catalog/item.h"
#include "catalog/item_reader.h"
#include "client/commands/common_flags.h"
#include "client/load_report.h"
#include "client/load_target.h"
#include "client/load_test.h"

namespace pricer {
namespace {

constexpr char kClosed[] = "closed";
constexpr int kDefaultConcurrency = 8;
constexpr int kMaxConnections = 1000;
// Of --input; they are all in memory.
constexpr size_t kMostTexts = 1'000'000;

struct LoadTestFlags {
  ConnectionFlags connection;
  LoadTestOptions options;
  std::string arrivals = "poisson";
  std::string duration = "30s";
  std::string warm_up = "2s";
  std::string deadline = "1s";
  int concurrency = kDefaultConcurrency;
  int connections = 1;
  bool bulk = false;
  bool json = false;
  std::string hgrm;
  std::string html;
  std::string input;
  std::string service_config;
  const CLI::App* app = nullptr;

  // As it was called, for whoever reads the page.
  std::string Command() const {
    std::string command = "pricer load-test";
    for (const CLI::Option* const option : app->get_options()) {
      if (option->count() == 0) continue;
      absl::StrAppend(&command, " ", option->get_name());
      const bool is_flag = option->get_items_expected_max() == 0;
      if (!is_flag) absl::StrAppend(&command, " ", absl::StrJoin(option->results(), ","));
    }
    return command;
  }

  absl::StatusOr<ClientOptions> Client() const {
    ASSIGN_OR_RETURN(ClientOptions options, connection.Options());
    if (service_config.empty()) return options;
    ASSIGN_OR_RETURN(options.service_config, ReadFile(service_config));
    if (!nlohmann::json::parse(options.service_config, nullptr, /*allow_exceptions=*/false)
             .is_object()) {
      return absl::DataLossError(absl::StrCat(service_config, ": expected a JSON object"));
    }
    return options;
  }

  absl::StatusOr<LoadTestOptions> Options() const {
    LoadTestOptions result = options;
    if (arrivals == kClosed) {
      result.concurrency = concurrency;
      if (concurrency < 1) {
        return absl::InvalidArgumentError("--concurrency: expected at least 1 call in flight");
      }
    } else {
      ASSIGN_OR_RETURN(result.arrivals.pattern, ParseArrivalPattern(arrivals));
    }
    ASSIGN_OR_RETURN(result.arrivals.duration, ParseDuration(duration));
    ASSIGN_OR_RETURN(result.warm_up, ParseDuration(warm_up));
    ASSIGN_OR_RETURN(result.deadline, ParseDuration(deadline));
    result.lane = bulk ? v1::LANE_BULK : v1::LANE_ONLINE;
    RETURN_IF_ERROR(result.Validate());
    return result;
  }

  // Items of --input, as texts.
  absl::StatusOr<std::vector<std::string>> Texts() const {
    std::vector<std::string> texts;
    if (input.empty()) return texts;
    ItemReaderOptions reading;
    reading.price_required = false;
    ASSIGN_OR_RETURN(const std::unique_ptr<ItemReader> reader, ItemReader::Open(input, reading));
    Item item;
    while (texts.size() < kMostTexts) {
      ASSIGN_OR_RETURN(const bool more, reader->Next(&item));
      if (!more) break;
      texts.push_back(ItemText(item));
    }
    if (texts.empty())
      return absl::DataLossError(absl::StrCat(input, ": expected items, got none"));
    return texts;
  }

  absl::Status Validate() const {
    RETURN_IF_ERROR(connection.Validate());
    if (connections < 1 || connections > kMaxConnections) {
      return absl::InvalidArgumentError("--connections: expected a number from 1 to 1000");
    }
    return Options().status();
  }
};

absl::StatusOr<int> Run(const LoadTestFlags& flags) {
  CatchInterrupts();
  ASSIGN_OR_RETURN(LoadTestOptions options, flags.Options());
  ASSIGN_OR_RETURN(options.texts, flags.Texts());
  ASSIGN_OR_RETURN(const ClientOptions client, flags.Client());
  // Before the test: where it cannot be written is known at once.
  std::optional<AtomicFileWriter> hgrm;
  if (!flags.hgrm.empty()) {
    ASSIGN_OR_RETURN(AtomicFileWriter writer, AtomicFileWriter::Create(flags.hgrm));
    hgrm.emplace(std::move(writer));
  }
  std::optional<AtomicFileWriter> html;
  if (!flags.html.empty()) {
    ASSIGN_OR_RETURN(AtomicFileWriter writer, AtomicFileWriter::Create(flags.html));
    html.emplace(std::move(writer));
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<LoadTarget> target,
                   LoadTarget::Open(client, flags.connections));
  RetryEnvironment environment = RetryEnvironment::System();
  environment.stop = InterruptRequested;
  const absl::StatusOr<LoadTestResult> result = RunLoadTest(
      options,
      [&target](LoadCall call, const std::function<void(const LoadAnswer&)>& done) {
        target->Start(std::move(call), done);
      },
      environment);
  if (absl::IsCancelled(result.status()) && InterruptRequested()) {
    std::cerr << "pricer: interrupted: nothing was measured to its end\n";
    return kExitInterrupted;
  }
  RETURN_IF_ERROR(result.status());
  if (hgrm.has_value()) {
    RETURN_IF_ERROR(hgrm->Append(result->Total().latency.Hgrm()));
    RETURN_IF_ERROR(hgrm->Commit());
  }
  if (html.has_value()) {
    RETURN_IF_ERROR(html->Append(LoadReportHtml(*result, flags.Command())));
    RETURN_IF_ERROR(html->Commit());
  }
  std::cout << (flags.json ? LoadReportJson(*result) + "\n" : LoadReportText(*result));
  return result->Total().ok_calls() > 0 ? kExitDone : kExitFailed;
}

}  // namespace

Command AddLoadTestCommand(CLI::App& parent) {
  auto flags = std::make_shared<LoadTestFlags>();
  LoadTestOptions* const options = &flags->options;
  CLI::App* app = parent.add_subcommand(
      "load-test", "calls a server as many callers would, and tells how long it took");
  flags->app = app;
  flags->connection.AddTo(app, "127.0.0.1:8500");
  app->add_option(
         "--arrivals", flags->arrivals,
         "poisson, constant or step (calls start when they are due); closed (--concurrency "
         "callers that wait for their answers)")
      ->capture_default_str();
  app->add_option("--rate", options->arrivals.rate, "calls a second; of step: at the end")
      ->capture_default_str();
  app->add_option("--steps", options->arrivals.steps, "of step")->capture_default_str();
  app->add_option("--concurrency", flags->concurrency, "of closed")->capture_default_str();
  app->add_option("--duration", flags->duration, "of the calls that are counted")
      ->capture_default_str()
      ->check(DurationError);
  app->add_option("--warm-up", flags->warm_up, "of calls before them")
      ->capture_default_str()
      ->check(DurationError);
  app->add_option("--deadline", flags->deadline, "of each call, from when it was due")
      ->capture_default_str()
      ->check(DurationError);
  app->add_option("--connections", flags->connections)->capture_default_str();
  app->add_option("--max-in-flight", options->max_in_flight,
                  "calls at once; those beyond are not sent and counted so")
      ->capture_default_str();
  app->add_option("--items-per-call", options->items_per_call)->capture_default_str();
  app->add_option("--adapters", options->adapters,
                  "names, the most popular first; none = the server's default")
      ->delimiter(',');
  app->add_option("--zipf", options->zipf,
                  "the n-th adapter's share goes with 1 / n^ZIPF; 0 = all alike")
      ->capture_default_str();
  app->add_option("--text-bytes", options->text_bytes, "lengths of texts, each as often")
      ->delimiter(',')
      ->capture_default_str();
  app->add_flag("--bulk", flags->bulk, "in the bulk lane");
  app->add_option("--seed", options->seed)->capture_default_str();
  app->add_flag("--json", flags->json, "one JSON object instead of a table");
  app->add_option("--service-config", flags->service_config,
                  "JSON file of gRPC's service config, such as its retry policy; none = each call "
                  "is made once");
  app->add_option("--input", flags->input,
                  "items to send, JSON lines, CSV or Parquet, again from the first after the last; "
                  "none = made up ones of --text-bytes");
  app->add_option("--html", flags->html, "file for a page with charts");
  app->add_option("--hgrm", flags->hgrm, "file for the latencies' percentiles, as HdrHistogram's");
  return {app, [flags] { return flags->Validate(); }, [flags] { return Run(*flags); }};
}

}  // namespace pricer
