#include <string>
#include <utility>
#include <vector>

#include "base/status_macros.h"
#include "model/adapter.h"
#include "model/cuda/device.h"
#include "tests/gpu/speed.h"
#include "trainer/memory_plan.h"
#include "trainer/step_memory.h"
#include "trainer/trainer.h"

// An optimizer step of about 16k tokens in micro-batches of at least 4k, rank 32, NF4 kept and
// decoded ahead of use, without recomputation.

namespace pricer::gpu {
namespace {

constexpr int64_t kItemTokens = 160;

std::vector<MicroBatch> MakeStep(const Bench& bench, const ModelConfig& config) {
  const int64_t items = bench.small ? 2 : 26;
  const int64_t micro_batches = bench.small ? 2 : 4;
  const int64_t tokens = bench.small ? 7 : kItemTokens;
  const BinsSpec bins{.min_price = 1, .max_price = 1000};
  std::vector<MicroBatch> step;
  for (int64_t m = 0; m < micro_batches; ++m) {
    std::vector<Example> examples;
    std::vector<int64_t> indices;
    for (std::vector<int32_t>& prompt : RandomPrompts(config, items, tokens)) {
      Example& example = examples.emplace_back();
      example.ids = std::move(prompt);
      example.price = 1 + static_cast<double>(examples.size());
      indices.push_back(static_cast<int64_t>(indices.size()));
    }
    step.push_back(MakeBinsMicroBatch(examples, indices, bins));
  }
  return step;
}

// As trainer/memory_plan.h adds it up.
absl::StatusOr<int64_t> PlannedBytes(const Network& network, const PeftConfig& peft,
                                     const std::vector<MicroBatch>& step) {
  ASSIGN_OR_RETURN(const AdapterShape adapter,
                   AdapterShape::Of(peft, network.config(), kDefaultBinCount));
  const PackedBatch& batch = step.front().batch;
  const BatchShape shape{.tokens = batch.token_count(),
                         .sequences = batch.sequence_count(),
                         .answers = batch.answer_count(),
                         .element_bytes = 2,
                         .on_gpu = true};
  return network.weight_bytes() + kGpuWorkspaceBytes +
         PredictTunedTensors(network.config(), adapter, /*on_gpu=*/true).total() +
         PredictStepMemory(network.config(), adapter, shape).peak_bytes();
}

absl::Status MeasureTargets(const Bench& bench, const Network& network,
                            const std::vector<std::string>& targets, double dropout,
                            double matmul_rate, nlohmann::json* figures) {
  PeftConfig peft;
  peft.r = 32;
  peft.alpha = 64;
  peft.dropout = dropout;
  peft.target_modules = targets;
  ASSIGN_OR_RETURN(PeftAdapter adapter,
                   MakeAdapter(peft, network.config(), kDefaultBinCount, /*seed=*/1));
  ASSIGN_OR_RETURN(const auto trainer,
                   Trainer::Create(&network, std::move(adapter), Trainer::Options()));
  trainer->PlanSteps(1000);
  const std::vector<MicroBatch> step = MakeStep(bench, network.config());
  cuda::TakePeakBytes(bench.device);
  StepResult last;
  ASSIGN_OR_RETURN(const double seconds,
                   MedianSeconds(bench, bench.part_seconds / 5, [&]() -> absl::Status {
                     ASSIGN_OR_RETURN(last, trainer->TrainStep(step));
                     return absl::OkStatus();
                   }));
  (*figures)["items_per_second"] = static_cast<double>(last.rows) / seconds;
  (*figures)["tokens_per_step"] = last.tokens;
  (*figures)["seconds_per_step"] = seconds;
  (*figures)["share_of_matmul_rate"] = last.flops / seconds / matmul_rate;
  constexpr double kGibibyte = 1 << 30;
  const int64_t peak = cuda::TakePeakBytes(bench.device);
  ASSIGN_OR_RETURN(const int64_t planned, PlannedBytes(network, peft, step));
  (*figures)["peak_gib"] = static_cast<double>(peak) / kGibibyte;
  (*figures)["planned_gib"] = static_cast<double>(planned) / kGibibyte;
  (*figures)["loss"] = last.loss;
  return absl::OkStatus();
}

}  // namespace

absl::Status MeasureTuning(const Bench& bench, nlohmann::json* figures) {
  ASSIGN_OR_RETURN(const double rate, MatmulRate(bench));
  (*figures)["matmul_tflops"] = rate / 1e12;
  ASSIGN_OR_RETURN(const auto network,
                   Network::Random(BenchModel(bench), {.weights = WeightsKind::kNf4,
                                                       .dtype = at::kBFloat16,
                                                       .device = bench.device,
                                                       .keep_nf4 = true}));
  const std::vector<std::string> attention = {"q_proj", "k_proj", "v_proj", "o_proj"};
  RETURN_IF_ERROR(
      MeasureTargets(bench, *network, {"all-linear"}, 0.0, rate, &(*figures)["all_linear"]));
  RETURN_IF_ERROR(MeasureTargets(bench, *network, {"all-linear"}, 0.05, rate,
                                 &(*figures)["all_linear_dropout"]));
  return MeasureTargets(bench, *network, attention, 0.0, rate, &(*figures)["attention"]);
}

}  // namespace pricer::gpu
