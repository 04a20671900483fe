// What the service costs around the model: a whole server with its listeners, its tokenizer and its
// predictor made up, and its callers, in one process over the loopback.
//
//   build/release/bin/service_benchmark batch       rows a second of calls with many
//   build/release/bin/service_benchmark job         rows a second of a batch job, against that
//   build/release/bin/service_benchmark single      calls a second, against an empty service
//   build/release/bin/service_benchmark overload    three times what the predictor can do, a minute

#include <grpcpp/grpcpp.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "base/exit_codes.h"
#include "base/file.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "base/temporary_directory.h"
#include "client/batch_job.h"
#include "client/client.h"
#include "client/load_report.h"
#include "client/load_target.h"
#include "client/load_test.h"
#include "pricer/v1/pricing.grpc.pb.h"
#include "server/server.h"
#include "tests/bench/resident_memory.h"
#include "tests/server/http_get.h"

namespace pricer {
namespace {

namespace fs = std::filesystem;

struct Options {
  int seconds = 10;
  int rounds = 3;
  int concurrency = 0;  // 0 = as the kind of measurement has it
  int connections = 0;
  int items_per_call = 1024;
  int text_bytes = 400;
  int64_t rows = 1'000'000;
  // Of the made-up predictor; 0 = no time.
  double tokens_per_second = 0;
  double overload = 3;
  int overload_seconds = 60;
};

// Answers with one distribution, as fast as it is told to.
class PacedPredictor final : public BatchPredictor {
 public:
  explicit PacedPredictor(double tokens_per_second) : tokens_per_second_(tokens_per_second) {}

  Results PredictBatch(absl::Span<const PredictorSequence> sequences) override {
    if (tokens_per_second_ > 0) {
      size_t tokens = 0;
      for (const PredictorSequence& sequence : sequences) tokens += sequence.ids.size();
      absl::SleepFor(absl::Seconds(static_cast<double>(tokens) / tokens_per_second_));
    }
    return Results(sequences.size(), distribution_);
  }

 private:
  const double tokens_per_second_;
  const PriceDistribution distribution_{1, 1000, std::vector<double>(128, 1.0 / 128)};
};

// A token for four bytes, no network, one adapter.
class NoEngine final : public Engine {
 public:
  explicit NoEngine(double tokens_per_second) : predictor_(tokens_per_second) {}

  const EngineInfo& info() const override { return info_; }
  BatchPredictor* predictor() override { return &predictor_; }
  absl::StatusOr<EncodedPrompt> Encode(const PromptTemplate& /*prompt*/,
                                       absl::string_view item_text) const override {
    EncodedPrompt encoded;
    encoded.ids.assign(1 + item_text.size() / 4, 7);
    return encoded;
  }
  absl::StatusOr<LoadedVersion> LoadAdapter(const std::string& directory) const override {
    auto adapter = std::make_shared<LoadedAdapter>();
    adapter->key = {fs::path(directory).parent_path().filename().string(), 1};
    adapter->digest = std::string(64, 'd');
    adapter->memory_bytes = 1;
    adapter->manifest.currency = "USD";
    return LoadedVersion{adapter, std::make_shared<AdapterTensors>()};
  }
  absl::StatusOr<std::shared_ptr<LoadedAdapter>> LoadBase() const override {
    return absl::FailedPreconditionError("there is none");
  }

 private:
  const EngineInfo info_ = {std::string(64, 'f'), "fp32", "fp32", "none"};
  PacedPredictor predictor_;
};

// What gRPC costs when nothing is done.
class EmptyService final : public v1::PricingService::CallbackService {
 public:
  grpc::ServerUnaryReactor* PredictPrice(grpc::CallbackServerContext* context,
                                         const v1::PredictPriceRequest* /*request*/,
                                         v1::PredictPriceResponse* /*response*/) override {
    grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }
};

std::string Loopback(int port) { return absl::StrCat("127.0.0.1:", port); }

absl::StatusOr<std::unique_ptr<Server>> StartServer(const Options& options,
                                                    const std::string& directory) {
  const std::string adapters = directory + "/adapters";
  fs::create_directories(adapters + "/shop/1");
  RETURN_IF_ERROR(WriteFile(adapters + "/shop/1/_READY", ""));
  ServerOptions server;
  server.base = directory;
  server.adapters = adapters;
  server.listen = server.admin_listen = server.health_listen = server.metrics_listen = Loopback(0);
  return Server::Start(server, [&options](const ServerOptions&) {
    return absl::StatusOr<std::unique_ptr<Engine>>(
        std::make_unique<NoEngine>(options.tokens_per_second));
  });
}

absl::StatusOr<LoadTestResult> Measure(const LoadTestOptions& load, int port, int connections) {
  ClientOptions client;
  client.server = Loopback(port);
  ASSIGN_OR_RETURN(const std::unique_ptr<LoadTarget> target, LoadTarget::Open(client, connections));
  return RunLoadTest(load,
                     [&target](LoadCall call, const std::function<void(const LoadAnswer&)>& done) {
                       target->Start(std::move(call), done);
                     });
}

LoadTestOptions ClosedLoop(const Options& options, int concurrency) {
  LoadTestOptions load;
  load.concurrency = options.concurrency > 0 ? options.concurrency : concurrency;
  load.arrivals.duration = absl::Seconds(options.seconds);
  load.deadline = absl::Seconds(30);
  load.text_bytes = {options.text_bytes};
  return load;
}

double ItemsPerSecond(const LoadTestStage& stage) {
  return static_cast<double>(stage.items) / absl::ToDoubleSeconds(stage.time);
}

double CallsPerSecond(const LoadTestStage& stage) {
  return static_cast<double>(stage.ok_calls()) / absl::ToDoubleSeconds(stage.time);
}

int ConnectionsOf(const Options& options) { return std::max(options.connections, 1); }

absl::Status RunBatch(const Options& options, const std::string& directory) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Server> server, StartServer(options, directory));
  LoadTestOptions load = ClosedLoop(options, 4);
  load.items_per_call = options.items_per_call;
  for (int round = 1; round <= options.rounds; ++round) {
    ASSIGN_OR_RETURN(const LoadTestResult result,
                     Measure(load, server->ports().pricing, ConnectionsOf(options)));
    absl::PrintF("round %d: %.0f rows/s in calls of %d\n%s", round, ItemsPerSecond(result.Total()),
                 options.items_per_call, LoadReportText(result));
  }
  return absl::OkStatus();
}

// Resident memory, looked at each second.
class MemoryWatch {
 public:
  MemoryWatch()
      : thread_([this] {
          while (!stopping_) {
            absl::SleepFor(absl::Seconds(1));
            samples_.push_back(ResidentMiB());
          }
        }) {}
  ~MemoryWatch() { Stop(); }

  const std::vector<double>& Stop() {
    stopping_ = true;
    if (thread_.joinable()) thread_.join();
    return samples_;
  }

 private:
  std::atomic<bool> stopping_{false};
  std::vector<double> samples_;
  std::thread thread_;
};

// JSON lines as a catalogue has them.
absl::Status WriteItems(const std::string& path, int64_t rows, int text_bytes) {
  ASSIGN_OR_RETURN(AtomicFileWriter writer, AtomicFileWriter::Create(path));
  const std::string description(std::max(text_bytes - 40, 1), 'x');
  for (int64_t row = 1; row <= rows; ++row) {
    RETURN_IF_ERROR(
        writer.Append(absl::StrCat(R"({"id":"item )", row, R"(","title":"Item )", row,
                                   R"(","brand":"Maker","description":")", description, "\"}\n")));
  }
  return writer.Commit();
}

absl::Status RunJob(const Options& options, const std::string& directory) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Server> server, StartServer(options, directory));
  BatchJobOptions job;
  job.input = directory + "/items.jsonl";
  job.output = directory + "/prices.jsonl";
  job.items_per_call = options.items_per_call;
  job.calls_in_flight = options.concurrency > 0 ? options.concurrency : 4;
  RETURN_IF_ERROR(WriteItems(job.input, options.rows, options.text_bytes));
  ClientOptions connection;
  connection.server = Loopback(server->ports().pricing);
  ASSIGN_OR_RETURN(const std::unique_ptr<Client> client, Client::Create(connection));
  const auto predict = [&](const v1::BatchPredictPricesRequest& request, absl::Time deadline) {
    return client->BatchPredictPrices(request, deadline);
  };
  LoadTestOptions load = ClosedLoop(options, 4);
  load.items_per_call = options.items_per_call;
  load.lane = v1::LANE_BULK;
  std::vector<double> ratios;
  for (int round = 1; round <= options.rounds; ++round) {
    ASSIGN_OR_RETURN(const LoadTestResult calls,
                     Measure(load, server->ports().pricing, ConnectionsOf(options)));
    const double without = ItemsPerSecond(calls.Total());
    const absl::Time start = absl::Now();
    MemoryWatch watch;
    const BatchJobOutcome outcome = RunBatchJob(job, predict, {});
    const double seconds = absl::ToDoubleSeconds(absl::Now() - start);
    const std::vector<double> memory = watch.Stop();
    RETURN_IF_ERROR(outcome.status);
    const double rate = static_cast<double>(outcome.result.rows) / seconds;
    absl::PrintF(
        "round %d: %d rows, %d with errors, in %.1f s: %.0f rows/s; calls without a job %.0f"
        ": %.3f; resident memory: %.0f MiB after a third, %.0f MiB at most\n",
        round, outcome.result.rows, outcome.result.errors, seconds, rate, without, rate / without,
        memory[memory.size() / 3], *std::max_element(memory.begin(), memory.end()));
    ratios.push_back(rate / without);
  }
  std::sort(ratios.begin(), ratios.end());
  absl::PrintF("job / calls: %.3f (median of %d rounds)\n", ratios[ratios.size() / 2],
               ratios.size());
  return absl::OkStatus();
}

absl::Status RunSingle(const Options& options, const std::string& directory) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Server> server, StartServer(options, directory));
  EmptyService empty;
  int empty_port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort(Loopback(0), grpc::InsecureServerCredentials(), &empty_port);
  builder.RegisterService(&empty);
  const std::unique_ptr<grpc::Server> empty_server = builder.BuildAndStart();
  const LoadTestOptions load = ClosedLoop(options, 64);
  std::vector<double> ratios;
  for (int round = 1; round <= options.rounds; ++round) {
    double nothing = 0;
    double ours = 0;
    for (const bool measure_ours : {round % 2 == 0, round % 2 != 0}) {
      ASSIGN_OR_RETURN(const LoadTestResult result,
                       Measure(load, measure_ours ? server->ports().pricing : empty_port,
                               ConnectionsOf(options)));
      (measure_ours ? ours : nothing) = CallsPerSecond(result.Total());
    }
    absl::PrintF("round %d: %.0f calls/s, of a service that does nothing %.0f: %.3f\n", round, ours,
                 nothing, ours / nothing);
    ratios.push_back(ours / nothing);
  }
  std::sort(ratios.begin(), ratios.end());
  absl::PrintF("pricing / nothing: %.3f (median of %d rounds)\n", ratios[ratios.size() / 2],
               ratios.size());
  return absl::OkStatus();
}

// Calls that the server refused: all, and those that took it at most 5 ms from its handler's start.
struct Refusals {
  double all = 0;
  double quick = 0;
};

Refusals ReadRefusals(int metrics_port) {
  Refusals refusals;
  const std::string text = testing::HttpGetMetrics(metrics_port);
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    if (!absl::StartsWith(line, "pricer_request_seconds_bucket{") ||
        !(absl::StrContains(line, "RESOURCE_EXHAUSTED") ||
          absl::StrContains(line, "DEADLINE_EXCEEDED"))) {
      continue;
    }
    double count = 0;
    if (!absl::SimpleAtod(line.substr(line.rfind(' ') + 1), &count)) continue;
    if (absl::StrContains(line, "le=\"+Inf\"")) refusals.all += count;
    if (absl::StrContains(line, "le=\"0.005\"")) refusals.quick += count;
  }
  return refusals;
}

absl::Status RunOverload(const Options& options, const std::string& directory) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Server> server, StartServer(options, directory));
  const int port = server->ports().pricing;
  const LoadTestOptions closed = ClosedLoop(options, 256);
  ASSIGN_OR_RETURN(const LoadTestResult alone, Measure(closed, port, ConnectionsOf(options)));
  const double capacity = CallsPerSecond(alone.Total());
  absl::PrintF("capacity: %.0f calls/s of %d callers that wait\n", capacity, closed.concurrency);

  LoadTestOptions load;
  load.arrivals.rate = options.overload * capacity;
  load.arrivals.duration = absl::Seconds(options.overload_seconds);
  load.text_bytes = {options.text_bytes};
  const Refusals before = ReadRefusals(server->ports().metrics);
  MemoryWatch watch;
  ASSIGN_OR_RETURN(const LoadTestResult overload, Measure(load, port, ConnectionsOf(options)));
  const std::vector<double> memory = watch.Stop();
  const Refusals after = ReadRefusals(server->ports().metrics);
  absl::PrintF("at %.1f times that:\n%s", options.overload, LoadReportText(overload));
  const LoadTestStage total = overload.Total();
  absl::PrintF("served / capacity: %.3f\n", CallsPerSecond(total) / capacity);
  absl::PrintF("refused within 5 ms of the handler's start: %.4f of %.0f\n",
               (after.quick - before.quick) / (after.all - before.all), after.all - before.all);
  const size_t third = memory.size() / 3;
  absl::PrintF("resident memory: %.0f MiB after a third, %.0f MiB at the end, %.0f MiB at most\n",
               memory[third], memory.back(), *std::max_element(memory.begin(), memory.end()));

  load.arrivals.rate = 0.7 * capacity;
  load.warm_up = absl::Seconds(1);
  load.arrivals.duration = absl::Seconds(5);
  ASSIGN_OR_RETURN(const LoadTestResult recovered, Measure(load, port, ConnectionsOf(options)));
  absl::PrintF("at 0.7 of the capacity, from one second after:\n%s", LoadReportText(recovered));
  return absl::OkStatus();
}

absl::Status Run(absl::Status (*measurement)(const Options&, const std::string&),
                 const Options& options) {
  ASSIGN_OR_RETURN(const TemporaryDirectory directory,
                   TemporaryDirectory::Create(fs::temp_directory_path().string()));
  return measurement(options, directory.path());
}

}  // namespace
}  // namespace pricer

int main(int argc, char** argv) {
  CLI::App app("The service without the model");
  pricer::Options options;
  app.fallthrough();
  app.require_subcommand(1);
  CLI::App* const batch = app.add_subcommand("batch", "Rows a second of calls with many");
  CLI::App* const job = app.add_subcommand("job", "A file of items, against calls alone");
  CLI::App* const single = app.add_subcommand("single", "Calls against those of an empty service");
  CLI::App* const overload = app.add_subcommand("overload", "More than the predictor can do");
  app.add_option("--seconds", options.seconds, "Of a measurement")->capture_default_str();
  app.add_option("--rounds", options.rounds)->capture_default_str();
  app.add_option("--concurrency", options.concurrency, "Calls in flight");
  app.add_option("--connections", options.connections);
  app.add_option("--items-per-call", options.items_per_call)->capture_default_str();
  app.add_option("--rows", options.rows, "Of a job")->capture_default_str();
  app.add_option("--text-bytes", options.text_bytes)->capture_default_str();
  app.add_option("--tokens-per-second", options.tokens_per_second,
                 "Of the predictor that is made up; 0 = it takes no time, of overload 200000");
  app.add_option("--overload", options.overload, "Times the capacity")->capture_default_str();
  app.add_option("--overload-seconds", options.overload_seconds)->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  pricer::SetLogLevel(pricer::LogLevel::kError);
  absl::Status status;
  if (batch->parsed()) status = pricer::Run(pricer::RunBatch, options);
  if (job->parsed()) status = pricer::Run(pricer::RunJob, options);
  if (single->parsed()) status = pricer::Run(pricer::RunSingle, options);
  if (overload->parsed()) {
    if (options.tokens_per_second == 0) options.tokens_per_second = 200'000;
    status = pricer::Run(pricer::RunOverload, options);
  }
  if (status.ok()) return pricer::kExitDone;
  absl::FPrintF(stderr, "service_benchmark: %s\n", status.message());
  return pricer::kExitFailed;
}
