// The command `pricer`: prices one item or a file, and shows a server's adapters.

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "base/build_info.h"
#include "base/interrupt.h"
#include "base/status_macros.h"
#include "base/units.h"
#include "catalog/item_parser.h"
#include "client/batch_job.h"
#include "client/client.h"

namespace pricer {
namespace {

using Json = nlohmann::ordered_json;
using RunCommand = std::function<absl::StatusOr<int>()>;

constexpr int kDone = 0;
constexpr int kFailed = 1;
constexpr int kWrongUsage = 2;
constexpr int kDoneWithRejects = 3;
constexpr int kInterrupted = 130;

int Complain(absl::string_view what, int exit_code) {
  std::cerr << "pricer: " << what << '\n';
  return exit_code;
}

int WrongUsage(const absl::Status& status) { return Complain(status.message(), kWrongUsage); }

// Empty = fine, as CLI11 wants it.
std::string DurationError(const std::string& text) {
  return std::string(ParseDuration(text).status().message());
}

struct ConnectionFlags {
  std::string server;
  std::string timeout = "30s";

  void AddTo(CLI::App* app, const std::string& default_server) {
    server = default_server;
    app->add_option("--server", server, "HOST:PORT of the server")->capture_default_str();
    app->add_option("--timeout", timeout, "of one call, with its retries")
        ->capture_default_str()
        ->check(DurationError);
  }

  absl::StatusOr<ClientOptions> Options() const {
    ClientOptions options;
    options.server = server;
    options.retry.timeout = *ParseDuration(timeout);
    RETURN_IF_ERROR(options.Validate());
    return options;
  }
};

struct AdapterFlags {
  std::string name;
  std::string version;

  void AddTo(CLI::App* app) {
    app->add_option("--adapter", name, "adapter's name; none = the server's default");
    app->add_option("--version-or-label", version, "version number or label; none = stable");
  }

  v1::AdapterSpec Spec() const {
    v1::AdapterSpec spec;
    spec.set_name(name);
    int64_t number = 0;
    if (absl::SimpleAtoi(version, &number)) {
      spec.set_version(number);
    } else if (!version.empty()) {
      spec.set_label(version);
    }
    return spec;
  }
};

std::string Money(double value) { return absl::StrFormat("%.2f", value); }

Json PredictionJson(const v1::Prediction& prediction) {
  Json json = {{"price", prediction.price()},
               {"currency", prediction.currency_code()},
               {"confidence", prediction.confidence()},
               {"intervals", Json::array()},
               {"quantiles", Json::array()}};
  for (const v1::Interval& interval : prediction.intervals()) {
    json["intervals"].push_back(
        {{"coverage", interval.coverage()}, {"low", interval.low()}, {"high", interval.high()}});
  }
  for (const v1::Quantile& quantile : prediction.quantiles()) {
    json["quantiles"].push_back({{"level", quantile.level()}, {"price", quantile.price()}});
  }
  const v1::ServedBy& by = prediction.served_by();
  json["served_by"] = {{"model", by.model()},
                       {"adapter", by.adapter()},
                       {"version", by.version()},
                       {"digest", by.digest()}};
  json["prompt_tokens"] = prediction.prompt_tokens();
  json["truncated"] = prediction.truncated();
  return json;
}

void PrintPrediction(const v1::Prediction& prediction) {
  const v1::ServedBy& by = prediction.served_by();
  std::cout << absl::StrFormat("%-12s %s %s\n", "price", Money(prediction.price()),
                               prediction.currency_code());
  for (const v1::Interval& interval : prediction.intervals()) {
    std::cout << absl::StrFormat("%-12s %s to %s\n",
                                 absl::StrFormat("%.3g %% range", 100 * interval.coverage()),
                                 Money(interval.low()), Money(interval.high()));
  }
  for (const v1::Quantile& quantile : prediction.quantiles()) {
    std::cout << absl::StrFormat("%-12s %s\n", absl::StrFormat("quantile %.4g", quantile.level()),
                                 Money(quantile.price()));
  }
  std::cout << absl::StrFormat("%-12s %.2f within 20 %% of the price\n", "confidence",
                               prediction.confidence())
            << absl::StrFormat("%-12s %s version %d, %d tokens%s\n", "served by", by.adapter(),
                               by.version(), prediction.prompt_tokens(),
                               prediction.truncated() ? ", text cut to fit" : "");
}

RunCommand AddPriceCommand(CLI::App& parent) {
  struct Flags {
    ConnectionFlags connection;
    AdapterFlags adapter;
    v1::Item item;
    std::string title, brand, category, description, details, text;
    std::string estimator;
    std::vector<double> quantiles;
    std::vector<double> coverages;
    bool json = false;
  };
  auto flags = std::make_shared<Flags>();
  CLI::App* app = parent.add_subcommand("price", "prices one item");
  flags->connection.AddTo(app, "127.0.0.1:8500");
  flags->adapter.AddTo(app);
  app->add_option("--title", flags->title);
  app->add_option("--brand", flags->brand);
  app->add_option("--category", flags->category);
  app->add_option("--description", flags->description);
  app->add_option("--details", flags->details);
  app->add_option("--text", flags->text, "free text instead of the fields");
  app->add_option("--estimator", flags->estimator, "median, mean, geomean, mode or quantile:Q");
  app->add_option("--quantiles", flags->quantiles, "levels in (0, 1)")->delimiter(',');
  app->add_option("--coverages", flags->coverages, "of intervals, in (0, 1); none = 0.8")
      ->delimiter(',');
  app->add_flag("--json", flags->json, "one JSON object instead of a table");
  return [flags]() -> absl::StatusOr<int> {
    const absl::StatusOr<ClientOptions> connection = flags->connection.Options();
    if (!connection.ok()) return WrongUsage(connection.status());
    v1::PredictPriceRequest request;
    v1::Item* item = request.mutable_item();
    item->set_title(flags->title);
    item->set_brand(flags->brand);
    item->set_category(flags->category);
    item->set_description(flags->description);
    item->set_details(flags->details);
    item->set_text(flags->text);
    *request.mutable_adapter() = flags->adapter.Spec();
    v1::PredictOptions* options = request.mutable_options();
    options->set_estimator(flags->estimator);
    for (double level : flags->quantiles) options->add_quantiles(level);
    for (double coverage : flags->coverages) options->add_interval_coverages(coverage);
    ASSIGN_OR_RETURN(const std::unique_ptr<Client> client, Client::Create(*connection));
    ASSIGN_OR_RETURN(const v1::PredictPriceResponse response, client->PredictPrice(request));
    if (flags->json) {
      std::cout << PredictionJson(response.prediction()).dump() << '\n';
    } else {
      PrintPrediction(response.prediction());
    }
    return kDone;
  };
}

// Rewrites one line on a terminal, says nothing elsewhere.
void ShowProgress(int64_t rows) {
  if (isatty(STDERR_FILENO)) std::cerr << "\r" << rows << " rows" << std::flush;
}

// Throws what CLI11 reports as wrong usage.
void ParseColumns(const std::vector<std::string>& entries,
                  std::map<std::string, std::string>* columns) {
  absl::StatusOr<std::map<std::string, std::string>> parsed = ItemParser::ParseColumns(entries);
  if (!parsed.ok()) throw CLI::ValidationError("--field", std::string(parsed.status().message()));
  *columns = *std::move(parsed);
}

RunCommand AddBatchCommand(CLI::App& parent) {
  struct Flags {
    ConnectionFlags connection;
    AdapterFlags adapter;
    BatchJobOptions job;
  };
  auto flags = std::make_shared<Flags>();
  CLI::App* app = parent.add_subcommand("batch", "prices a file of items, one line per item");
  flags->connection.timeout = "5m";
  flags->connection.AddTo(app, "127.0.0.1:8500");
  flags->adapter.AddTo(app);
  app->add_option("--input", flags->job.input, "JSON lines, also .gz")->required();
  app->add_option("--output", flags->job.output, "JSON lines, one for each line of the input")
      ->required();
  app->add_option_function<std::vector<std::string>>(
         "--field",
         [flags](const std::vector<std::string>& entries) {
           ParseColumns(entries, &flags->job.columns);
         },
         "FIELD=COLUMN where the input names a field otherwise; can be repeated")
      ->expected(1)
      ->take_all();
  app->add_option("--currency", flags->job.currency, "of the input's prices, where it has any")
      ->capture_default_str();
  app->add_option("--estimator", flags->job.estimator, "median, mean, geomean, mode or quantile:Q");
  app->add_option("--coverage", flags->job.coverage, "of the interval low to high")
      ->capture_default_str();
  app->add_option("--items-per-call", flags->job.items_per_call)->capture_default_str();
  app->add_option("--calls-in-flight", flags->job.calls_in_flight)->capture_default_str();
  return [flags]() -> absl::StatusOr<int> {
    flags->job.adapter = flags->adapter.Spec();
    absl::StatusOr<ClientOptions> connection = flags->connection.Options();
    if (!connection.ok()) return WrongUsage(connection.status());
    flags->job.retry = connection->retry;
    if (absl::Status valid = flags->job.Validate(); !valid.ok()) return WrongUsage(valid);
    CatchInterrupts();
    RetryEnvironment environment = RetryEnvironment::System();
    environment.stop = InterruptRequested;
    ASSIGN_OR_RETURN(const std::unique_ptr<Client> client,
                     Client::Create(*connection, environment));
    const auto predict = [&](const v1::BatchPredictPricesRequest& request) {
      return client->BatchPredictPrices(request);
    };
    const absl::StatusOr<BatchJobResult> result =
        RunBatchJob(flags->job, predict, ShowProgress, environment);
    if (isatty(STDERR_FILENO)) std::cerr << '\n';
    if (absl::IsCancelled(result.status()) && InterruptRequested()) {
      return Complain("interrupted: there is no complete output", kInterrupted);
    }
    RETURN_IF_ERROR(result.status());
    // Standard output may be the output.
    std::cerr << result->rows << " rows, " << result->errors << " with errors, in "
              << flags->job.output << '\n';
    return result->errors == 0 ? kDone : kDoneWithRejects;
  };
}

std::string StateName(v1::AdapterState state) {
  const std::string name = v1::AdapterState_Name(state);
  return std::string(absl::StripPrefix(name, "ADAPTER_STATE_"));
}

Json AdapterJson(const v1::AdapterVersion& version) {
  return {{"name", version.name()},
          {"version", version.version()},
          {"state", StateName(version.state())},
          {"reason", version.reason()},
          {"digest", version.digest()},
          {"memory_bytes", version.memory_bytes()},
          {"serves_by_default", version.serves_by_default()}};
}

RunCommand AddAdaptersListCommand(CLI::App* adapters) {
  struct Flags {
    ConnectionFlags connection;
    std::string name;
    bool json = false;
  };
  auto flags = std::make_shared<Flags>();
  CLI::App* app = adapters->add_subcommand("list", "shows every version and its state");
  flags->connection.AddTo(app, "127.0.0.1:8501");
  app->add_option("--name", flags->name, "of one adapter; none = all");
  app->add_flag("--json", flags->json, "one JSON object a line instead of a table");
  return [flags]() -> absl::StatusOr<int> {
    const absl::StatusOr<ClientOptions> connection = flags->connection.Options();
    if (!connection.ok()) return WrongUsage(connection.status());
    v1::ListAdaptersRequest request;
    request.set_name(flags->name);
    ASSIGN_OR_RETURN(const std::unique_ptr<Client> client, Client::Create(*connection));
    ASSIGN_OR_RETURN(const v1::ListAdaptersResponse response, client->ListAdapters(request));
    if (!flags->json) {
      std::cout << absl::StrFormat("%-24s %8s  %-10s %10s  %s\n", "NAME", "VERSION", "STATE",
                                   "MEMORY", "REASON");
    }
    for (const v1::AdapterVersion& version : response.versions()) {
      if (flags->json) {
        std::cout << AdapterJson(version).dump() << '\n';
        continue;
      }
      std::cout << absl::StrFormat(
          "%-24s %8d  %-10s %6.1f MiB  %s%s%s\n", version.name(), version.version(),
          StateName(version.state()), static_cast<double>(version.memory_bytes()) / (1 << 20),
          version.serves_by_default() ? "serves by default" : "",
          version.serves_by_default() && !version.reason().empty() ? "; " : "", version.reason());
    }
    return kDone;
  };
}

int ExitCode(const absl::StatusOr<int>& result) {
  if (result.ok()) return *result;
  return Complain(absl::StrCat(absl::StatusCodeToString(result.status().code()), ": ",
                               result.status().message()),
                  kFailed);
}

int Run(int argc, char** argv) {
  CLI::App app("Prices products from their text.", "pricer");
  app.set_version_flag("--version", std::string(BuildVersion()));
  app.set_config("--config", "", "options as TOML");
  app.allow_config_extras(CLI::config_extras_mode::error);
  app.require_subcommand(1);
  // So that --config can stand after the subcommand.
  app.fallthrough();
  const RunCommand price = AddPriceCommand(app);
  const RunCommand batch = AddBatchCommand(app);
  CLI::App* adapters = app.add_subcommand("adapters", "shows a server's adapters");
  adapters->require_subcommand(1);
  const RunCommand list = AddAdaptersListCommand(adapters);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kDone : kWrongUsage;
  }
  if (app.got_subcommand("price")) return ExitCode(price());
  if (app.got_subcommand("batch")) return ExitCode(batch());
  return ExitCode(list());
}

int Main(int argc, char** argv) {
  const int exit_code = Run(argc, argv);
  if (std::cout.flush()) return exit_code;
  return Complain("cannot write to standard output", kFailed);
}

}  // namespace
}  // namespace pricer

int main(int argc, char** argv) { return pricer::Main(argc, argv); }
