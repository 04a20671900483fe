#include "trainer/tuning_memory.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "base/units.h"
#include "model/cuda/device.h"
#include "model/weights.h"

namespace pricer {
namespace {

PlanPrompts AllowedPrompts(const TuningInputs& inputs) {
  PlanPrompts prompts;
  if (inputs.completion.has_value()) prompts.answers = kTypicalPriceTokens;
  prompts.longest = std::min(inputs.prompt.max_prompt_tokens,
                             inputs.base.checkpoint->config().MaxSequenceTokens());
  prompts.tokens = std::min(kTypicalPromptTokens, prompts.longest);
  prompts.longest += prompts.answers - 1;
  prompts.tokens += prompts.answers - 1;
  return prompts;
}

// Micro-batches of short items hold the most answers: as typical counts the length that nine of ten
// items exceed.
PlanPrompts ReadPrompts(const Dataset& data) {
  PlanPrompts prompts;
  std::vector<int64_t> lengths;
  for (const Example& example : data.examples) {
    // The last token of a completion is never fed.
    const bool completes = example.completion_tokens > 0;
    lengths.push_back(static_cast<int64_t>(example.ids.size()) - (completes ? 1 : 0));
    prompts.answers = std::max(prompts.answers, example.completion_tokens);
  }
  const auto short_one = lengths.begin() + static_cast<int64_t>(lengths.size() / 10);
  std::nth_element(lengths.begin(), short_one, lengths.end());
  prompts.tokens = std::max(*short_one, prompts.answers);
  prompts.longest = std::max(*std::max_element(lengths.begin(), lengths.end()), prompts.answers);
  return prompts;
}

int64_t BytesOf(const Dataset& data) {
  int64_t bytes = 0;
  for (size_t i = 0; i < data.examples.size(); ++i) {
    const std::vector<int32_t>& ids = data.examples[i].ids;
    bytes += static_cast<int64_t>(sizeof(Example) + ids.capacity() * sizeof(ids[0]));
    bytes += static_cast<int64_t>(sizeof(std::string) + data.item_ids[i].capacity());
  }
  return bytes;
}

// The GPU that the options ask for, or find; absent where a CPU computes.
absl::StatusOr<std::optional<at::Device>> PlannedGpu(const BaseOptions& options) {
  if (options.device == "cuda") return std::optional(at::Device(at::kCUDA, 0));
  ASSIGN_OR_RETURN(const at::Device found, ParseDevice(options.device));
  return cuda::RunsOn(found) ? std::optional(found) : std::nullopt;
}

}  // namespace

absl::StatusOr<WeightsPlan> WeightsPlanOf(const BaseOptions& options, const Checkpoint& checkpoint,
                                          const std::optional<int64_t>& budget_bytes) {
  WeightsPlan plan;
  plan.weights = options.weights == "auto" ? "nf4" : options.weights;
  plan.threads = options.threads > 0 ? options.threads : at::get_num_threads();
  ASSIGN_OR_RETURN(const std::optional<at::Device> gpu, PlannedGpu(options));
  if (!gpu.has_value()) {
    ASSIGN_OR_RETURN(const at::ScalarType dtype, ComputeDtypeOf(options));
    plan.element_bytes = static_cast<int64_t>(at::elementSize(dtype));
    return plan;
  }
  ASSIGN_OR_RETURN(const at::ScalarType dtype,
                   ParseComputeDtype(options.dtype, at::Device(at::kCUDA)));
  plan.element_bytes = static_cast<int64_t>(at::elementSize(dtype));
  const bool in_nf4 = plan.weights == "nf4" || checkpoint.declares_nf4();
  if (!in_nf4 || options.resident == "bf16") {
    plan.place = WeightsPlace::kGpuDecoded;
    return plan;
  }
  plan.place = WeightsPlace::kGpuInNf4;
  if (options.resident == "nf4") return plan;
  std::optional<int64_t> memory = budget_bytes;
  if (!memory.has_value() && cuda::RunsOn(*gpu) && cuda::CheckAvailable(*gpu).ok()) {
    memory = cuda::FreeBytes(*gpu);
  }
  const int64_t decoded = checkpoint.config().ParameterCount() * plan.element_bytes;
  if (memory.has_value() && decoded <= *memory / 2) plan.place = WeightsPlace::kGpuDecoded;
  return plan;
}

absl::StatusOr<TuningFit> FitMemoryBudget(const TuningOptions& options,
                                          const TuningInputs& inputs) {
  MemoryPlanRequest request;
  ASSIGN_OR_RETURN(request.weights, WeightsPlanOf(options.base, *inputs.base.checkpoint,
                                                  options.memory_budget_bytes));
  request.adapter = LoraConfigOf(options);
  request.bins = options.head == "token" ? 0 : options.bins;
  request.prompts =
      inputs.train.examples.empty() ? AllowedPrompts(inputs) : ReadPrompts(inputs.train);
  request.budget_bytes = options.memory_budget_bytes;
  request.data_bytes = BytesOf(inputs.train);
  return FitTuning(*inputs.base.checkpoint, request, options.micro_batch_tokens);
}

void DescribeFit(const TuningOptions& options, const TuningFit& fit) {
  absl::FPrintF(stderr,
                "memory: %s predicted, of %s that a budget of %s leaves for it; the activations of "
                "%d of %d layers are computed twice\n",
                BytesText(fit.tuning_bytes), BytesText(fit.usable_bytes),
                BytesText(*options.memory_budget_bytes), fit.recomputed_layers,
                fit.recomputable_layers);
}

}  // namespace pricer
