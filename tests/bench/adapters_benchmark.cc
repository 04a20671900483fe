// What many adapters cost: items a second of prompts that are priced under one adapter, and of the
// same prompts under many, drawn at random, of the thousands that are registered. Both go through
// scheduler, adapter memory and network as in a server, in turns in one process.
//
//   build/release/bin/adapters_benchmark --base BASE

#include <malloc.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <filesystem>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "base/check.h"
#include "base/exit_codes.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "base/temporary_directory.h"
#include "model/checkpoint.h"
#include "server/adapter_folder.h"
#include "server/adapter_loader.h"
#include "server/adapter_memory.h"
#include "server/adapter_registry.h"
#include "server/adapter_watcher.h"
#include "server/batch_scheduler.h"
#include "server/model_engine.h"
#include "tests/bench/bench_adapters.h"
#include "tests/bench/resident_memory.h"

namespace pricer {
namespace {

namespace fs = std::filesystem;

struct Options {
  ServerOptions server;
  BenchAdapterOptions adapter;
  int registered = 2000;
  int in_use = 200;
  int in_memory = 250;
  int items = 480;
  int tokens = 168;
  int rounds = 5;
};

class Bench {
 public:
  // Works in `directory`.
  Bench(const Options& options, std::string directory)
      : options_(options), directory_(std::move(directory)) {}

  absl::Status Start();
  // Items a second; one adapter or many.
  double Measure(bool many);
  void Report(const std::vector<double>& ratios);

 private:
  const Options options_;
  Metrics metrics_;
  const std::string directory_;
  std::unique_ptr<Engine> engine_;
  AdapterRegistry registry_{"", &metrics_, Clock::System()};
  std::unique_ptr<AdapterMemory> memory_;
  std::unique_ptr<BatchScheduler> scheduler_;
  std::unique_ptr<AdapterLoader> loader_;
  std::unique_ptr<AdapterWatcher> watcher_;
  std::vector<std::vector<int32_t>> prompts_;
  std::vector<std::string> in_use_;
  std::vector<int> choice_;  // of each item
  int64_t adapter_bytes_ = 0;
  double resident_before_ = 0;
};

absl::Status Bench::Start() {
  const std::string written = directory_ + "/written";
  const std::string linked = directory_ + "/adapters";
  fs::create_directories(linked);
  ASSIGN_OR_RETURN(const auto checkpoint, Checkpoint::Open(options_.server.base));
  BenchAdapterOptions adapter = options_.adapter;
  adapter.weights = options_.server.weights;
  RETURN_IF_ERROR(WriteBenchAdapters(adapter, *checkpoint, written));
  for (int i = 0; i < options_.registered; ++i) {
    LinkBenchAdapter(written, i, linked, BenchAdapterName(i), 1);
  }
  ASSIGN_OR_RETURN(engine_, LoadModelEngine(options_.server));
  ASSIGN_OR_RETURN(const LoadedVersion first,
                   engine_->LoadAdapter(AdapterDirectory(linked, {BenchAdapterName(0), 1})));
  adapter_bytes_ = first.adapter->memory_bytes;
  memory_ = std::make_unique<AdapterMemory>(
      AdapterMemoryOptions{.host_bytes = adapter_bytes_ * options_.in_memory},
      AdapterTensorSource{.read =
                              [this, linked](const LoadedAdapter& adapter) {
                                return loader_->ReadAgain(adapter,
                                                          AdapterDirectory(linked, adapter.key));
                              },
                          .copy_to_device = nullptr},
      &metrics_, Clock::System());
  registry_.SetMemory(memory_.get());
  scheduler_ = std::make_unique<BatchScheduler>(options_.server.scheduler, engine_->predictor(),
                                                &metrics_, Clock::System(), memory_.get());
  loader_ = std::make_unique<AdapterLoader>(engine_.get(), scheduler_.get(), memory_.get());
  watcher_ = std::make_unique<AdapterWatcher>(
      AdapterWatcherOptions{.root = linked},
      [this](const std::string& directory) { return loader_->Load(directory); }, &registry_,
      &metrics_, Clock::System());
  const absl::Time start = absl::Now();
  resident_before_ = ResidentMiB();
  RETURN_IF_ERROR(watcher_->Poll());
  absl::PrintF("%d adapters of %.2f MiB checked in %.1f s\n", options_.registered,
               static_cast<double>(adapter_bytes_) / (1 << 20),
               absl::ToDoubleSeconds(absl::Now() - start));

  std::mt19937 random(1);
  for (int i = 0; i < options_.items; ++i) {
    std::vector<int32_t> ids(options_.tokens);
    for (int32_t& id : ids) {
      id = static_cast<int32_t>(random() % checkpoint->config().vocabulary_size);
    }
    prompts_.push_back(std::move(ids));
    choice_.push_back(static_cast<int>(random() % options_.in_use));
  }
  std::vector<std::string> names;
  for (int i = 0; i < options_.registered; ++i) names.push_back(BenchAdapterName(i));
  std::shuffle(names.begin(), names.end(), random);
  in_use_.assign(names.begin(), names.begin() + options_.in_use);
  return absl::OkStatus();
}

double Bench::Measure(bool many) {
  std::atomic<int> done{0};
  const absl::Time start = absl::Now();
  for (int i = 0; i < options_.items; ++i) {
    const auto adapter = registry_.Find(in_use_[many ? choice_[i] : 0], std::nullopt);
    PRICER_CHECK(adapter.ok());
    PriceTask task;
    task.ids = prompts_[i];
    task.adapter = *adapter;
    task.caller = "bench";
    task.done = [&done](const TaskResult& result) {
      PRICER_CHECK(result.distribution.ok());
      ++done;
    };
    // A task that is refused is as it was.
    while (!scheduler_->Schedule(std::move(task)).ok()) {  // NOLINT(bugprone-use-after-move)
      absl::SleepFor(absl::Milliseconds(1));
    }
  }
  while (done < options_.items) absl::SleepFor(absl::Microseconds(200));
  return options_.items / absl::ToDoubleSeconds(absl::Now() - start);
}

void Bench::Report(const std::vector<double>& ratios) {
  std::vector<double> sorted = ratios;
  std::sort(sorted.begin(), sorted.end());
  malloc_trim(0);
  absl::PrintF("many / one: %.3f (median of %d rounds, %.3f to %.3f)\n", sorted[sorted.size() / 2],
               sorted.size(), sorted.front(), sorted.back());
  absl::PrintF("memory: %.0f MiB for adapters allowed, %.0f MiB more resident than before them\n",
               static_cast<double>(adapter_bytes_ * options_.in_memory) / (1 << 20),
               ResidentMiB() - resident_before_);
}

absl::Status Run(const Options& options) {
  ASSIGN_OR_RETURN(const TemporaryDirectory directory,
                   TemporaryDirectory::Create(fs::temp_directory_path().string()));
  Bench bench(options, directory.path());
  RETURN_IF_ERROR(bench.Start());
  bench.Measure(/*many=*/true);  // brings them into memory
  std::vector<double> ratios;
  for (int round = 0; round < options.rounds; ++round) {
    const bool many_first = round % 2 == 1;
    const double first = bench.Measure(many_first);
    const double second = bench.Measure(!many_first);
    const double one = many_first ? second : first;
    const double many = many_first ? first : second;
    absl::PrintF("round %d: one adapter %.1f items/s, %d of %d adapters %.1f items/s: %.3f\n",
                 round + 1, one, options.in_use, options.registered, many, many / one);
    ratios.push_back(many / one);
  }
  bench.Report(ratios);
  return absl::OkStatus();
}

}  // namespace
}  // namespace pricer

int main(int argc, char** argv) {
  CLI::App app("Many adapters against one");
  pricer::Options options;
  app.add_option("--base", options.server.base, "Checkpoint directory")->required();
  app.add_option("--dtype", options.server.dtype)->capture_default_str();
  app.add_option("--weights", options.server.weights)->capture_default_str();
  app.add_option("--threads", options.server.threads, "0: one per core")->capture_default_str();
  app.add_option("--max-batch-tokens", options.server.scheduler.max_batch_tokens)
      ->capture_default_str();
  app.add_option("--targets", options.adapter.targets, "Linears with LoRA")->capture_default_str();
  app.add_option("--rank", options.adapter.rank)->capture_default_str();
  app.add_option("--registered", options.registered, "Adapters in the folder")
      ->capture_default_str();
  app.add_option("--in-use", options.in_use, "Of them, drawn at random")->capture_default_str();
  app.add_option("--in-memory", options.in_memory, "That there is memory for")
      ->capture_default_str();
  app.add_option("--items", options.items, "Of a measurement")->capture_default_str();
  app.add_option("--tokens", options.tokens, "Of an item")->capture_default_str();
  app.add_option("--rounds", options.rounds)->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  pricer::SetLogLevel(pricer::LogLevel::kError);
  const absl::Status status = pricer::Run(options);
  if (status.ok()) return pricer::kExitDone;
  absl::FPrintF(stderr, "adapters_benchmark: %s\n", status.message());
  return pricer::kExitFailed;
}
