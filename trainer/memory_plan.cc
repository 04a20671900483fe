#include "trainer/memory_plan.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/units.h"
#include "model/nf4.h"
#include "model/ops/product_blocks.h"

namespace pricer {
namespace {

constexpr int64_t kFloatBytes = 4;
constexpr int64_t kBf16Bytes = 2;

// What loading something holds at most, and what it leaves.
struct Load {
  int64_t tensor_peak = 0;
  int64_t peak = 0;
  int64_t kept = 0;

  // `next` is loaded beside what this has left.
  void Add(const Load& next) {
    tensor_peak = std::max(tensor_peak, kept + next.tensor_peak);
    peak = std::max(peak, kept + next.peak);
    kept += next.kept;
  }
};

// A copy of a tensor in its own dtype, then in the compute dtype.
Load LoadPlain(int64_t values, int64_t stored_bytes, const WeightsPlan& plan) {
  const bool same = stored_bytes == plan.element_bytes;
  const int64_t peak = values * (stored_bytes + (same ? 0 : plan.element_bytes));
  return {peak, peak, values * plan.element_bytes};
}

// Packed values and the codes of their blocks; nf4.h.
int64_t Nf4Bytes(int64_t values) { return values / 2 + values / kNf4BlockSize * (1 + kFloatBytes); }

// As LoadLinearWeight does.
Load LoadLinear(const Checkpoint& checkpoint, const std::string& module, LinearShape shape,
                const WeightsPlan& plan) {
  const int64_t values = shape.out * shape.in;
  const int64_t element = plan.element_bytes;
  const int64_t narrowed = element == kFloatBytes ? 0 : element;
  const int64_t kept = values * element;
  if (checkpoint.IsNf4(module)) {
    const int64_t peak = values * (kFloatBytes + narrowed);
    return {peak, peak + Nf4Bytes(values), kept};
  }
  const int64_t stored = DtypeBytes(checkpoint.tensor(module + ".weight").dtype);
  const int64_t widened = values * (kFloatBytes + (stored == kFloatBytes ? 0 : stored));
  const bool quantizes = plan.weights == "nf4" && !checkpoint.declares_nf4();
  if (quantizes) {
    const int64_t decoded = values * (2 * kFloatBytes + narrowed);
    return {std::max(widened, decoded), std::max(widened, decoded + Nf4Bytes(values)), kept};
  }
  // Rounded to bf16 on the way.
  const bool rounds = plan.weights == "bf16";
  const int64_t rounded = rounds ? kBf16Bytes + (narrowed > 0 ? 0 : kFloatBytes) : narrowed;
  const int64_t peak = std::max(widened, values * (kFloatBytes + rounded));
  return {peak, peak, kept};
}

// In the layout of the products, W^T; model/ops/matrix_product.h.
int64_t PackedBytes(LinearShape shape, int64_t element_bytes) {
  return RoundUp(kFloatBytes / element_bytes, shape.in) * RoundUp(kProductTile, shape.out) *
         element_bytes;
}

Load LoadGroup(const Checkpoint& checkpoint, int64_t layer,
               const std::vector<Projection>& projections, const WeightsPlan& plan) {
  Load group;
  for (const Projection projection : projections) {
    const LinearShape shape = ProjectionShape(checkpoint.config(), projection);
    const int64_t packed = PackedBytes(shape, plan.element_bytes);
    Load linear = LoadLinear(checkpoint, ModulePath(layer, projection), shape, plan);
    linear.Add({packed, packed, 0});
    linear.kept = packed;
    group.Add(linear);
  }
  return group;
}

Load LoadLayer(const Checkpoint& checkpoint, const WeightsPlan& plan) {
  const int64_t norm = checkpoint.config().hidden_size * plan.element_bytes;
  Load layer{2 * norm, 2 * norm, 2 * norm};
  layer.Add(LoadGroup(checkpoint, 0, {Projection::kQ, Projection::kK, Projection::kV}, plan));
  layer.Add(LoadGroup(checkpoint, 0, {Projection::kO}, plan));
  layer.Add(LoadGroup(checkpoint, 0, {Projection::kGate, Projection::kUp}, plan));
  layer.Add(LoadGroup(checkpoint, 0, {Projection::kDown}, plan));
  return layer;
}

Load LoadHead(const Checkpoint& checkpoint, const WeightsPlan& plan) {
  const ModelConfig& config = checkpoint.config();
  const int64_t values = config.vocabulary_size * config.hidden_size;
  if (config.tied_embeddings) return {};
  if (checkpoint.IsNf4("lm_head")) {
    return LoadLinear(checkpoint, "lm_head", {config.vocabulary_size, config.hidden_size}, plan);
  }
  return LoadPlain(values, DtypeBytes(checkpoint.tensor("lm_head.weight").dtype), plan);
}

// cos and sin of angles.
int64_t RotaryBytes(const ModelConfig& config) {
  return 2 * config.MaxSequenceTokens() * (config.head_dim / 2) * kFloatBytes;
}

int64_t BiasValues(const ModelConfig& config) {
  int64_t values = config.LinearParameterCount();
  for (int p = 0; p < kProjectionCount; ++p) {
    const LinearShape shape = ProjectionShape(config, static_cast<Projection>(p));
    values -= config.layer_count * shape.out * shape.in;
  }
  return values;
}

struct Plans {
  const Checkpoint& checkpoint;
  const MemoryPlanRequest& request;
  AdapterShape adapter;
  MemoryPlan plan;

  const ModelConfig& model() const { return checkpoint.config(); }

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
        std::max(batch.step.peak_bytes(), batch.forward_bytes + plan.tuned.best);
    const int64_t resident =
        plan.weights.total() + batch.step.gradient_weight_bytes + plan.tuned.total();
    batch.tuning_bytes =
        std::max(plan.load.peak_bytes + plan.served_adapter_bytes, resident + at_work);
    batch.serving_bytes =
        std::max(plan.load.peak_bytes,
                 plan.weights.total() + 2 * plan.served_adapter_bytes + batch.forward_bytes);
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
  plans.plan.tuned = PredictTunedTensors(checkpoint.config(), plans.adapter);
  plans.plan.served_adapter_bytes = plans.plan.tuned.best;
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
  if (request.weights.threads > 1) {
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
  budget.usable_bytes = UsableBytes(bytes, plans.request.data_bytes);
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
      " are for that; what would fit: --memory-budget ",
      BytesText(BudgetFor(need, plans.request.data_bytes)));
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
  fit.usable_bytes = UsableBytes(*request.budget_bytes, request.data_bytes);
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
  constexpr int64_t kMebibyte = int64_t{1} << 20;
  const int64_t bytes = kProgramBytes + data_bytes +
                        static_cast<int64_t>(std::ceil(kTensorSlack * static_cast<double>(usable)));
  return (bytes + kMebibyte - 1) / kMebibyte * kMebibyte;
}

ResidentWeights PredictWeights(const Checkpoint& checkpoint, const WeightsPlan& plan) {
  const ModelConfig& config = checkpoint.config();
  const int64_t embedding = config.vocabulary_size * config.hidden_size * plan.element_bytes;
  ResidentWeights weights;
  weights.linears = BiasValues(config) * plan.element_bytes;
  for (int p = 0; p < kProjectionCount; ++p) {
    weights.linears +=
        config.layer_count *
        PackedBytes(ProjectionShape(config, static_cast<Projection>(p)), plan.element_bytes);
  }
  weights.embedding = embedding;
  weights.head = config.tied_embeddings ? 0 : embedding;
  weights.norms = (2 * config.layer_count + 1) * config.hidden_size * plan.element_bytes;
  weights.rotary = RotaryBytes(config);
  return weights;
}

LoadMemory PredictLoadMemory(const Checkpoint& checkpoint, const WeightsPlan& plan) {
  const ModelConfig& config = checkpoint.config();
  Load load;
  load.Add(LoadPlain(config.vocabulary_size * config.hidden_size,
                     DtypeBytes(checkpoint.tensor("model.embed_tokens.weight").dtype), plan));
  load.Add(LoadHead(checkpoint, plan));
  const int64_t rotary = RotaryBytes(config);
  load.Add({rotary + rotary / 2, rotary + rotary / 2, rotary});  // and the angles
  // at::parallel_for gives each thread a run of layers; those at work are equally far.
  const int64_t threads = std::min<int64_t>(plan.threads, config.layer_count);
  const int64_t run = (config.layer_count + threads - 1) / threads;
  const int64_t at_work = (config.layer_count + run - 1) / run;
  const Load layer = LoadLayer(checkpoint, plan);
  const int64_t done = config.layer_count - at_work;
  load.Add({0, 0, done * layer.kept + BiasValues(config) * plan.element_bytes});
  load.Add({at_work * layer.tensor_peak, at_work * layer.peak, at_work * layer.kept});
  return {load.tensor_peak, load.peak};
}

TunedTensors PredictTunedTensors(const ModelConfig& model, const AdapterShape& adapter) {
  const int64_t trained = adapter.LoraValues(model) + adapter.HeadValues(model);
  const int64_t published = adapter.LoraValues(model) + adapter.ScoreValues(model);
  const bool cosine = adapter.bins > 0 && adapter.cosine_head;
  const int64_t basis = cosine ? adapter.bins * (adapter.bins - 1) + model.hidden_size : 0;
  TunedTensors tuned;
  tuned.adapter = kFloatBytes * (published + (cosine ? adapter.HeadValues(model) + basis : 0));
  tuned.gradients = kFloatBytes * trained;
  tuned.moments = 2 * kFloatBytes * trained;
  tuned.best = kFloatBytes * published;
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
