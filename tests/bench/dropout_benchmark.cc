// What LoRA's dropout costs in a tuning step: the same step with and without it, by turns.
//
//   build/release/bin/dropout_benchmark --base DIR --dtype bf16     (a quiet machine)
//
// Prints the best time of each, and the median over the rounds of their ratio.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "catalog/median.h"
#include "model/adapter.h"
#include "model/philox.h"
#include "model/tensor_memory.h"
#include "trainer/base_model.h"
#include "trainer/loss.h"
#include "trainer/trainer.h"

namespace pricer {
namespace {

struct Options {
  BaseOptions base;
  int64_t items = 8;
  int64_t item_tokens = 128;
  int64_t lora_rank = 16;
  double dropout = 0.1;
  int64_t rounds = 9;
};

absl::StatusOr<std::unique_ptr<Trainer>> MakeTrainer(const Options& options, const BaseModel& base,
                                                     const Network& network, double dropout) {
  PeftConfig config;
  config.task = PeftTask::kSeqCls;
  config.r = options.lora_rank;
  config.alpha = 2.0 * static_cast<double>(options.lora_rank);
  config.dropout = dropout;
  config.target_modules = {std::string(kAllLinear)};
  ASSIGN_OR_RETURN(PeftAdapter adapter,
                   MakeAdapter(config, base.checkpoint->config(), kDefaultBinCount, /*seed=*/1));
  ASSIGN_OR_RETURN(std::unique_ptr<Trainer> trainer,
                   Trainer::Create(&network, std::move(adapter), {}));
  trainer->set_schedule({.total_steps = 1'000'000, .warmup_steps = 0});
  return trainer;
}

std::vector<Example> RandomExamples(const Options& options, int64_t vocabulary) {
  std::vector<Example> examples(options.items);
  for (int64_t i = 0; i < options.items; ++i) {
    for (int64_t t = 0; t < options.item_tokens; ++t) {
      const PhiloxCounter random =
          Philox4x32({static_cast<uint32_t>(i), static_cast<uint32_t>(t), 0, 0}, {1, 0});
      examples[i].ids.push_back(static_cast<int32_t>(random[0] % vocabulary));
    }
    examples[i].price = 10.0 + static_cast<double>(i);
  }
  return examples;
}

// Of a step that follows one of its own kind, whose memory it finds again, as in a run.
absl::StatusOr<double> SecondsOf(Trainer* trainer, const MicroBatch& micro_batch) {
  RETURN_IF_ERROR(trainer->TrainStep({&micro_batch, 1}).status());
  const auto start = std::chrono::steady_clock::now();
  RETURN_IF_ERROR(trainer->TrainStep({&micro_batch, 1}).status());
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

absl::Status Run(const Options& options) {
  RETURN_IF_ERROR(options.base.Validate());
  ASSIGN_OR_RETURN(const BaseModel base, OpenBase(options.base, /*needs_tokenizer=*/false));
  ASSIGN_OR_RETURN(const std::unique_ptr<Network> network,
                   LoadNetwork(base, options.base, /*weights=*/"bf16"));
  ASSIGN_OR_RETURN(const std::unique_ptr<Trainer> plain, MakeTrainer(options, base, *network, 0));
  ASSIGN_OR_RETURN(const std::unique_ptr<Trainer> dropped,
                   MakeTrainer(options, base, *network, options.dropout));
  const std::vector<Example> examples =
      RandomExamples(options, base.checkpoint->config().vocabulary_size);
  std::vector<int64_t> indices;
  for (int64_t i = 0; i < options.items; ++i) indices.push_back(i);
  const BinsSpec bins{.bins = kDefaultBinCount, .min_price = 5, .max_price = 100};
  const MicroBatch micro_batch = MakeBinsMicroBatch(examples, indices, bins);

  double best_plain = std::numeric_limits<double>::infinity();
  double best_dropped = best_plain;
  std::vector<double> ratios;
  for (int64_t round = 0; round < options.rounds; ++round) {
    ASSIGN_OR_RETURN(const double without, SecondsOf(plain.get(), micro_batch));
    ASSIGN_OR_RETURN(const double with, SecondsOf(dropped.get(), micro_batch));
    best_plain = std::min(best_plain, without);
    best_dropped = std::min(best_dropped, with);
    ratios.push_back(with / without);
  }
  absl::PrintF("step of %d tokens, rank %d: %.3f s without dropout, %.3f s with %g; ratio %.3f\n",
               micro_batch.batch.token_count(), options.lora_rank, best_plain, best_dropped,
               options.dropout, Median(ratios));
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  Options options;
  options.base.weights = "bf16";
  CLI::App app("Time of a tuning step with and without LoRA's dropout");
  app.add_option("--base", options.base.directory, "Checkpoint directory")->required();
  app.add_option("--dtype", options.base.dtype, "fp32, bf16 or auto");
  app.add_option("--threads", options.base.threads, "0 = all cores");
  app.add_option("--items", options.items, "Of a step")->check(CLI::Range(1, 10000));
  app.add_option("--item-tokens", options.item_tokens, "Of an item")->check(CLI::Range(1, 2000));
  app.add_option("--lora-r", options.lora_rank, "On all linears")->check(CLI::Range(1, 1024));
  app.add_option("--dropout", options.dropout, "Share left out")->check(CLI::Range(0.01, 0.9));
  app.add_option("--rounds", options.rounds, "Of both")->check(CLI::Range(1, 1000));
  CLI11_PARSE(app, argc, argv);
  TensorMemory::Install();
  const absl::Status status = Run(options);
  if (status.ok()) return 0;
  absl::FPrintF(stderr, "%s\n", status.ToString());
  return 1;
}

}  // namespace
}  // namespace pricer

int main(int argc, char** argv) { return pricer::Main(argc, argv); }
