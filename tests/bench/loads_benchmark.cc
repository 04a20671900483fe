// What callers feel of adapters that come and go: a whole server with a small real network over the
// loopback, calls at a share of what it can do for adapters of which some are asked for far more
// than others, with and without versions being published and removed all the while, in turns.
//
//   build/release/bin/loads_benchmark
//
// Prints the ratio of the 99th percentiles of each pair and the median of them.

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

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "base/exit_codes.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "base/temporary_directory.h"
#include "client/load_report.h"
#include "client/load_target.h"
#include "client/load_test.h"
#include "model/checkpoint.h"
#include "server/model_engine.h"
#include "server/server.h"
#include "tests/bench/bench_adapters.h"
#include "tests/testing/tiny_model.h"

namespace pricer {
namespace {

namespace fs = std::filesystem;

struct Options {
  ServerOptions server;
  BenchAdapterOptions adapter = {.weights = "fp32"};
  int adapters = 50;
  double zipf = 1;
  double load = 0.7;
  int text_bytes = 150;
  int pairs = 5;
  int seconds = 30;
  absl::Duration load_interval = absl::Milliseconds(200);
};

// Publishes new versions of adapters, one after the other, and removes those before them.
class Publisher {
 public:
  Publisher(const Options& options, std::string from, std::string root)
      : options_(options), from_(std::move(from)), root_(std::move(root)) {}

  void Start() {
    stopping_ = false;
    thread_ = std::thread([this] {
      while (!stopping_) {
        PublishNext();
        absl::SleepFor(options_.load_interval);
      }
    });
  }
  // How many were published since Start.
  int64_t Stop() {
    stopping_ = true;
    thread_.join();
    return std::exchange(published_, 0);
  }

 private:
  void PublishNext() {
    const int64_t adapter = next_ % options_.adapters;
    const int64_t version = next_ / options_.adapters + 2;
    const std::string name = BenchAdapterName(adapter);
    LinkBenchAdapter(from_, next_, root_, name, version);
    // The version before it may still be asked for: the one before that is not.
    fs::remove_all(fs::path(root_) / name / absl::StrCat(version - 2));
    ++next_;
    ++published_;
  }

  const Options& options_;
  const std::string from_;
  const std::string root_;
  int64_t next_ = 0;
  int64_t published_ = 0;
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

absl::StatusOr<LoadTestStage> Measure(const LoadTestOptions& load, int port) {
  ClientOptions client;
  client.server = absl::StrCat("127.0.0.1:", port);
  ASSIGN_OR_RETURN(const std::unique_ptr<LoadTarget> target, LoadTarget::Open(client, 1));
  ASSIGN_OR_RETURN(const LoadTestResult result,
                   RunLoadTest(load, [&target](LoadCall call,
                                               const std::function<void(const LoadAnswer&)>& done) {
                     target->Start(std::move(call), done);
                   }));
  LoadTestStage total = result.Total();
  if (total.ok_calls() < total.due) {
    return absl::InternalError(absl::StrCat("calls failed:\n", LoadReportText(result)));
  }
  return total;
}

absl::Status Run(const Options& options) {
  ASSIGN_OR_RETURN(const TemporaryDirectory directory,
                   TemporaryDirectory::Create(fs::temp_directory_path().string()));
  ServerOptions server_options = options.server;
  if (server_options.base.empty()) {
    server_options.base = directory.path() + "/base";
    RETURN_IF_ERROR(testing::WriteTinyCheckpoint(
        server_options.base, {.hidden_size = 128, .ffn_size = 256, .layer_count = 4}));
  }
  const std::string written = directory.path() + "/written";
  const std::string root = directory.path() + "/adapters";
  fs::create_directories(root);
  ASSIGN_OR_RETURN(const auto base, Checkpoint::Open(server_options.base));
  RETURN_IF_ERROR(WriteBenchAdapters(options.adapter, *base, written));
  LoadTestOptions load;
  for (int i = 0; i < options.adapters; ++i) {
    load.adapters.push_back(BenchAdapterName(i));
    LinkBenchAdapter(written, i, root, load.adapters.back(), 1);
  }
  server_options.adapters = root;
  server_options.weights = options.adapter.weights;
  server_options.dtype = options.adapter.dtype;
  server_options.listen = server_options.admin_listen = server_options.health_listen =
      server_options.metrics_listen = "127.0.0.1:0";
  ASSIGN_OR_RETURN(const std::unique_ptr<Server> server,
                   Server::Start(server_options, LoadModelEngine));
  const int port = server->ports().pricing;

  load.zipf = options.zipf;
  load.text_bytes = {options.text_bytes};
  load.deadline = absl::Seconds(30);
  LoadTestOptions closed = load;
  closed.concurrency = 64;
  closed.arrivals.duration = absl::Seconds(std::min(options.seconds, 10));
  ASSIGN_OR_RETURN(const LoadTestStage alone, Measure(closed, port));
  load.arrivals.rate =
      options.load * static_cast<double>(alone.ok_calls()) / absl::ToDoubleSeconds(alone.time);
  load.arrivals.duration = absl::Seconds(options.seconds);
  absl::PrintF("capacity %.0f calls/s; offered %.0f calls/s for %d adapters, Zipf %.1f\n",
               load.arrivals.rate / options.load, load.arrivals.rate, options.adapters,
               options.zipf);

  Publisher publisher(options, written, root);
  std::vector<double> ratios;
  for (int pair = 1; pair <= options.pairs; ++pair) {
    double quiet = 0;
    double loading = 0;
    int64_t published = 0;
    for (const bool publish : {pair % 2 == 0, pair % 2 != 0}) {
      load.seed = static_cast<uint64_t>(pair);
      if (publish) publisher.Start();
      const absl::StatusOr<LoadTestStage> stage = Measure(load, port);
      if (publish) published = publisher.Stop();
      RETURN_IF_ERROR(stage.status());
      (publish ? loading : quiet) = absl::ToDoubleMilliseconds(stage->latency.Quantile(0.99));
    }
    absl::PrintF("pair %d: p99 %.2f ms, with %d versions loaded %.2f ms: %.3f\n", pair, quiet,
                 published, loading, loading / quiet);
    ratios.push_back(loading / quiet);
  }
  std::sort(ratios.begin(), ratios.end());
  absl::PrintF("p99 with loads / without: %.3f (median of %d pairs, %.3f to %.3f)\n",
               ratios[ratios.size() / 2], ratios.size(), ratios.front(), ratios.back());
  return absl::OkStatus();
}

}  // namespace
}  // namespace pricer

int main(int argc, char** argv) {
  CLI::App app("Calls while adapters come and go");
  pricer::Options options;
  int interval_ms = 200;
  app.add_option("--base", options.server.base, "Checkpoint directory; none = a tiny random one");
  app.add_option("--weights", options.adapter.weights)->capture_default_str();
  app.add_option("--dtype", options.adapter.dtype)->capture_default_str();
  app.add_option("--threads", options.server.threads, "0: one per core")->capture_default_str();
  app.add_option("--max-batch-tokens", options.server.scheduler.max_batch_tokens)
      ->capture_default_str();
  app.add_option("--rank", options.adapter.rank)->capture_default_str();
  app.add_option("--adapters", options.adapters)->capture_default_str();
  app.add_option("--zipf", options.zipf)->capture_default_str();
  app.add_option("--load", options.load, "Of the capacity")->capture_default_str();
  app.add_option("--text-bytes", options.text_bytes)->capture_default_str();
  app.add_option("--pairs", options.pairs)->capture_default_str();
  app.add_option("--seconds", options.seconds, "Of a measurement")->capture_default_str();
  app.add_option("--interval-ms", interval_ms, "Between two versions")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  options.load_interval = absl::Milliseconds(interval_ms);
  pricer::SetLogLevel(pricer::LogLevel::kError);
  const absl::Status status = pricer::Run(options);
  if (status.ok()) return pricer::kExitDone;
  absl::FPrintF(stderr, "loads_benchmark: %s\n", status.message());
  return pricer::kExitFailed;
}
