#include "trainer/memory_plan.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/units.h"

namespace pricer {
namespace {

constexpr int64_t kFloatBytes = 4;
constexpr int64_t kBf16Bytes = 2;

int64_t WholeMebibytes(int64_t bytes) {
  constexpr int64_t kMebibyte = int64_t{1} << 20;
  return (bytes + kMebibyte - 1) / kMebibyte * kMebibyte;
}

struct Plans {
  const Checkpoint& checkpoint;
  const MemoryPlanRequest& request;
  AdapterShape adapter;
  MemoryPlan plan;

  const ModelConfig& model() const { return checkpoint.config(); }

  int64_t Usable(int64_t budget) const {
    return request.weights.on_gpu() ? budget : UsableBytes(budget, request.data_bytes);
  }
  int64_t BudgetOf(int64_t usable) const {
    return request.weights.on_gpu() ? WholeMebibytes(usable)
                                    : BudgetFor(usable, request.data_bytes);
  }

  BatchShape ShapeOf(int64_t tokens, int64_t recomputed_layers) const {
    const PlanPrompts& prompts = request.prompts;
    BatchShape shape;
    shape.tokens = tokens;
    // One longest prompt stands alone.
    shape.sequences =
        tokens <= prompts.longest ? 1 : (tokens + prompts.tokens - 1) / prompts.tokens;
    shape.answers = shape.sequences * prompts.answers;
    shape.element_bytes = request.weights.element_bytes;
    shape.threads = request.weights.threads;
    shape.on_gpu = request.weights.on_gpu();
    shape.recomputed_layers = recomputed_layers;
    return shape;
  }

  MemoryPlan::Batch Predict(int64_t tokens, int64_t recomputed_layers = 0) const {
    const BatchShape shape = ShapeOf(tokens, recomputed_layers);
    MemoryPlan::Batch batch;
    batch.tokens = tokens;
    batch.step = PredictStepMemory(model(), adapter, shape);
    batch.forward_bytes = PredictForwardMemory(model(), adapter, shape);
    // A validation keeps the copy that it judges beside the best one.
    const int64_t at_work =
        std::max(batch.step.peak_bytes(), batch.forward_bytes + plan.judged_adapter_bytes);
    const int64_t resident = plan.weights.total() + plan.workspace_bytes +
                             batch.step.gradient_weight_bytes + plan.tuned.total();
    batch.tuning_bytes =
        std::max(plan.load.peak_bytes + plan.judged_adapter_bytes, resident + at_work);
    batch.serving_bytes =
        std::max(plan.load.peak_bytes, plan.weights.total() + plan.workspace_bytes +
                                           2 * plan.served_adapter_bytes + batch.forward_bytes);
    return batch;
  }

  int64_t TuningBytes(int64_t tokens) const { return Predict(tokens).tuning_bytes; }
  int64_t ServingBytes(int64_t tokens) const { return Predict(tokens).serving_bytes; }

  // With as many layers computed twice as helps: all, or all but the last of them, which is
  // computed again when the others' activations are gone already.
  int64_t RecomputingBytes(int64_t tokens) const {
    const int64_t most = adapter.RecomputableLayers();
    return std::min({Predict(tokens, most).tuning_bytes,
                     Predict(tokens, std::max<int64_t>(most - 1, 0)).tuning_bytes,
                     TuningBytes(tokens)});
  }

  // The most tokens whose need is within the budget.
  std::optional<int64_t> MostTokens(int64_t budget, int64_t (Plans::*need)(int64_t) const) const {
    int64_t fits = request.prompts.longest;
    if ((this->*need)(fits) > budget) return std::nullopt;
    int64_t too_many = kMostPlannedTokens + 1;
    while (too_many - fits > 1) {
      const int64_t middle = fits + (too_many - fits) / 2;
      ((this->*need)(middle) <= budget ? fits : too_many) = middle;
    }
    return fits;
  }
};

absl::StatusOr<Plans> MakePlans(const Checkpoint& checkpoint, const MemoryPlanRequest& request) {
  Plans plans{checkpoint, request, {}, {}};
  ASSIGN_OR_RETURN(plans.adapter,
                   AdapterShape::Of(request.adapter, checkpoint.config(), request.bins));
  plans.plan.weights = PredictWeights(checkpoint, request.weights);
  plans.plan.load = PredictLoadMemory(checkpoint, request.weights);
  const ModelConfig& model = checkpoint.config();
  const bool on_gpu = request.weights.on_gpu();
  plans.plan.tuned = PredictTunedTensors(model, plans.adapter, on_gpu);
  const int64_t lora = plans.adapter.LoraValues(model);
  const int64_t score = kFloatBytes * plans.adapter.ScoreValues(model);
  plans.plan.judged_adapter_bytes = kFloatBytes * lora + score;
  plans.plan.served_adapter_bytes = (on_gpu ? kBf16Bytes : kFloatBytes) * lora + score;
  plans.plan.workspace_bytes = on_gpu ? kGpuWorkspaceBytes : 0;
  return plans;
}

// The least that tuning needs with other options.
absl::StatusOr<int64_t> LeastTuningBytes(const Checkpoint& checkpoint,
                                         const MemoryPlanRequest& request) {
  ASSIGN_OR_RETURN(const Plans plans, MakePlans(checkpoint, request));
  return plans.RecomputingBytes(request.prompts.longest);
}

// Each change by itself, then with all those before it.
absl::StatusOr<std::vector<std::pair<std::string, int64_t>>> OtherOptions(
    const Checkpoint& checkpoint, const MemoryPlanRequest& request) {
  using Change = std::pair<std::string, void (*)(MemoryPlanRequest*)>;
  std::vector<Change> changes;
  if (request.weights.element_bytes > kBf16Bytes) {
    changes.emplace_back("--dtype bf16",
                         [](MemoryPlanRequest* r) { r->weights.element_bytes = kBf16Bytes; });
  }
  if (request.weights.place == WeightsPlace::kGpuDecoded && request.weights.weights == "nf4") {
    changes.emplace_back("--resident nf4",
                         [](MemoryPlanRequest* r) { r->weights.place = WeightsPlace::kGpuInNf4; });
  }
  if (request.weights.threads > 1 && !request.weights.on_gpu()) {
    changes.emplace_back("--threads 1", [](MemoryPlanRequest* r) { r->weights.threads = 1; });
  }
  if (request.bins == 0) {
    changes.emplace_back("--head bins", [](MemoryPlanRequest* r) {
      r->bins = 128;
      r->adapter.task = PeftTask::kSeqCls;
      r->prompts.answers = 1;
    });
  }
  if (request.adapter.r > 8) {
    changes.emplace_back("--lora-r 8", [](MemoryPlanRequest* r) { r->adapter.r = 8; });
  }
  std::vector<std::pair<std::string, int64_t>> options;
  MemoryPlanRequest all = request;
  std::string names;
  for (const auto& [name, change] : changes) {
    MemoryPlanRequest one = request;
    change(&one);
    ASSIGN_OR_RETURN(const int64_t alone, LeastTuningBytes(checkpoint, one));
    options.emplace_back(name, alone);
    change(&all);
    absl::StrAppend(&names, names.empty() ? "" : " ", name);
    if (names == name) continue;
    ASSIGN_OR_RETURN(const int64_t together, LeastTuningBytes(checkpoint, all));
    options.emplace_back(names, together);
  }
  std::stable_sort(options.begin(), options.end(),
                   [](const auto& a, const auto& b) { return a.second < b.second; });
  return options;
}

absl::StatusOr<MemoryPlan::Budget> PlanBudget(const Plans& plans, int64_t bytes) {
  const int64_t longest = plans.request.prompts.longest;
  MemoryPlan::Budget budget;
  budget.bytes = bytes;
  budget.usable_bytes = plans.Usable(bytes);
  budget.tuning_tokens = plans.MostTokens(budget.usable_bytes, &Plans::TuningBytes);
  budget.recomputing_tokens = plans.MostTokens(budget.usable_bytes, &Plans::RecomputingBytes);
  budget.serving_tokens = plans.MostTokens(budget.usable_bytes, &Plans::ServingBytes);
  budget.least_tuning_bytes = plans.RecomputingBytes(longest);
  budget.least_serving_bytes = plans.ServingBytes(longest);
  if (budget.recomputing_tokens.has_value()) return budget;
  ASSIGN_OR_RETURN(budget.instead, OtherOptions(plans.checkpoint, plans.request));
  const auto too_large =
      std::find_if(budget.instead.begin(), budget.instead.end(),
                   [&](const auto& option) { return option.second > budget.usable_bytes; });
  if (too_large != budget.instead.begin()) budget.instead.erase(too_large, budget.instead.end());
  return budget;
}

// "tuning with ... needs ..., and ... fits": why a run cannot be, and what could.
std::string DoesNotFit(const Plans& plans, const MemoryPlan::Budget& budget, int64_t tokens) {
  const MemoryPlan& plan = plans.plan;
  const int64_t need = plans.RecomputingBytes(tokens);
  std::string text = absl::StrCat(
      "--memory-budget ", BytesText(budget.bytes), ": tuning with micro-batches of ", tokens,
      " tokens needs ", BytesText(need), " at least (weights ", BytesText(plan.weights.total()),
      ", a second time for gradients ", BytesText(plans.Predict(tokens).step.gradient_weight_bytes),
      ", adapter, gradients and moments ", BytesText(plan.tuned.total()), ", loading at most ",
      BytesText(plan.load.peak_bytes), "), and of the budget ", BytesText(budget.usable_bytes),
      " are for that; what would fit: --memory-budget ", BytesText(plans.BudgetOf(need)));
  if (budget.recomputing_tokens.has_value()) {
    return absl::StrCat(text, ", or --micro-batch-tokens ", *budget.recomputing_tokens);
  }
  for (const auto& [options, bytes] : budget.instead) {
    if (bytes > budget.usable_bytes) continue;
    absl::StrAppend(&text, ", or ", options, " with --micro-batch-tokens ",
                    plans.request.prompts.longest);
  }
  return text;
}

}  // namespace

absl::StatusOr<TuningFit> FitTuning(const Checkpoint& checkpoint, const MemoryPlanRequest& request,
                                    int64_t tokens) {
  ASSIGN_OR_RETURN(const Plans plans, MakePlans(checkpoint, request));
  tokens = std::max(tokens, request.prompts.longest);
  TuningFit fit;
  fit.recomputable_layers = plans.adapter.RecomputableLayers();
  fit.place = request.weights.place;
  fit.usable_bytes = plans.Usable(*request.budget_bytes);
  for (; fit.recomputed_layers <= fit.recomputable_layers; ++fit.recomputed_layers) {
    fit.tuning_bytes = plans.Predict(tokens, fit.recomputed_layers).tuning_bytes;
    if (fit.tuning_bytes <= fit.usable_bytes) return fit;
  }
  ASSIGN_OR_RETURN(const MemoryPlan::Budget budget, PlanBudget(plans, *request.budget_bytes));
  return absl::FailedPreconditionError(DoesNotFit(plans, budget, tokens));
}

int64_t UsableBytes(int64_t budget, int64_t data_bytes) {
  const int64_t left = std::max<int64_t>(budget - kProgramBytes - data_bytes, 0);
  return static_cast<int64_t>(static_cast<double>(left) / kTensorSlack);
}

int64_t BudgetFor(int64_t usable, int64_t data_bytes) {
  return WholeMebibytes(
      kProgramBytes + data_bytes +
      static_cast<int64_t>(std::ceil(kTensorSlack * static_cast<double>(usable))));
}

TunedTensors PredictTunedTensors(const ModelConfig& model, const AdapterShape& adapter,
                                 bool on_gpu) {
  const int64_t trained = adapter.LoraValues(model) + adapter.HeadValues(model);
  const int64_t published = adapter.LoraValues(model) + adapter.ScoreValues(model);
  const bool cosine = adapter.bins > 0 && adapter.cosine_head;
  const int64_t basis = cosine ? adapter.bins * (adapter.bins - 1) + model.hidden_size : 0;
  TunedTensors tuned;
  tuned.adapter = kFloatBytes * (published + (cosine ? adapter.HeadValues(model) + basis : 0));
  tuned.gradients = kFloatBytes * trained;
  tuned.moments = 2 * kFloatBytes * trained;
  tuned.best = on_gpu ? 0 : kFloatBytes * published;
  return tuned;
}

absl::StatusOr<MemoryPlan> PlanMemory(const Checkpoint& checkpoint,
                                      const MemoryPlanRequest& request) {
  ASSIGN_OR_RETURN(const Plans plans, MakePlans(checkpoint, request));
  MemoryPlan plan = plans.plan;
  for (const int64_t tokens : request.tokens) plan.batches.push_back(plans.Predict(tokens));
  if (request.budget_bytes.has_value()) {
    ASSIGN_OR_RETURN(plan.budget, PlanBudget(plans, *request.budget_bytes));
  }
  return plan;
}

}  // namespace pricer
