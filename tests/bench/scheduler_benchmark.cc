// What scheduling and finding an adapter cost without tokenizer, network and computing: items a
// second for each core that is busy, of callers that keep a queue of pre-tokenized items full.

#include <time.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/check.h"
#include "base/clock.h"
#include "server/adapter_memory.h"
#include "server/adapter_registry.h"
#include "server/batch_scheduler.h"

namespace pricer {
namespace {

struct Options {
  int64_t items = 1'000'000;
  int64_t tokens = 168;
  int adapters = 50;
  int in_memory = 50;
  int callers = 8;
  int threads = 1;
};

class NoPredictor : public BatchPredictor {
 public:
  Results PredictBatch(absl::Span<const PredictorSequence> sequences) override {
    return Results(sequences.size(), distribution_);
  }

 private:
  const PriceDistribution distribution_{1, 1000, std::vector<double>(128, 1.0 / 128)};
};

double CpuSeconds() {
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

void Run(const Options& options) {
  Metrics metrics;
  AdapterMemory memory({.host_bytes = options.in_memory},
                       {.read = [](const LoadedAdapter&) -> absl::StatusOr<TensorsHandle> {
                          return std::make_shared<AdapterTensors>();
                        },
                        .copy_to_device = nullptr},
                       &metrics, Clock::System());
  AdapterRegistry registry("", &metrics, Clock::System());
  registry.SetMemory(&memory);
  for (int a = 0; a < options.adapters; ++a) {
    auto adapter = std::make_shared<LoadedAdapter>();
    adapter->key = {absl::StrCat("adapter-", a), 1};
    adapter->memory_bytes = 1;
    memory.Add(adapter, std::make_shared<AdapterTensors>(), nullptr);
    registry.Discover(adapter->key);
    registry.Publish(adapter, absl::ZeroDuration());
  }
  NoPredictor predictor;
  BatchScheduler scheduler({.max_batch_tokens = 16384, .max_queue_tokens = 262144}, &predictor,
                           &metrics, Clock::System(), &memory);
  std::atomic<int64_t> done = 0;
  std::atomic<int64_t> refused = 0;
  const double cpu = CpuSeconds();
  const absl::Time start = Clock::System()->Now();
  std::vector<std::thread> threads;
  for (int t = 0; t < options.threads; ++t) {
    threads.emplace_back([&, t] {
      for (int64_t i = t; i < options.items; i += options.threads) {
        const auto adapter =
            registry.Find(absl::StrCat("adapter-", i % options.adapters), std::nullopt);
        PRICER_CHECK(adapter.ok());
        PriceTask task;
        task.ids.assign(options.tokens, 7);
        task.adapter = *adapter;
        task.lane = i % 3 == 0 ? Lane::kBulk : Lane::kOnline;
        task.caller = absl::StrCat("caller-", i % options.callers);
        task.deadline = Clock::System()->Now() + absl::Seconds(30);
        task.done = [&done](const TaskResult& result) {
          PRICER_CHECK(result.distribution.ok());
          done.fetch_add(1, std::memory_order_relaxed);
        };
        // A task that is refused is as it was.
        while (!scheduler.Schedule(std::move(task)).ok()) {  // NOLINT(bugprone-use-after-move)
          refused.fetch_add(1, std::memory_order_relaxed);
          std::this_thread::yield();
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  // Stop would not wait for adapters to be fetched.
  while (done.load() < options.items) std::this_thread::yield();
  scheduler.Stop(absl::InfiniteFuture());
  const double seconds = absl::ToDoubleSeconds(Clock::System()->Now() - start);
  const double cpu_seconds = CpuSeconds() - cpu;
  PRICER_CHECK(done.load() == options.items);
  const auto items = static_cast<double>(options.items);
  absl::PrintF(
      "%d items of %d tokens, %d adapters of which %d fit into memory, %d callers: %.0f items/s, "
      "%.0f items/s for each busy "
      "core; %d refusals that were tried again\n",
      options.items, options.tokens, options.adapters, options.in_memory, options.callers,
      items / seconds, items / cpu_seconds, refused.load());
}

}  // namespace
}  // namespace pricer

int main(int argc, char** argv) {
  CLI::App app("Scheduler and registry without computing");
  pricer::Options options;
  app.add_option("--items", options.items)->capture_default_str();
  app.add_option("--tokens", options.tokens, "Of an item")->capture_default_str();
  app.add_option("--adapters", options.adapters)->capture_default_str();
  app.add_option("--in-memory", options.in_memory, "Adapters that fit into memory")
      ->capture_default_str();
  app.add_option("--callers", options.callers)->capture_default_str();
  app.add_option("--threads", options.threads, "That schedule")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  pricer::Run(options);
  return 0;
}
