#include "trainer/trainer.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "model/torch_status.h"
#include "trainer/option_checks.h"

namespace pricer {
namespace {

// Steps after which a time budget is turned into a number of steps.
constexpr int64_t kTimedSteps = 3;

std::vector<AdamW::Group> ParameterGroups(const AdapterWeights& weights,
                                          const at::Tensor& head_coefficients) {
  AdamW::Group lora;
  for (const auto& layer : weights.layers) {
    for (const LoraWeights& linear : layer) {
      if (!linear.defined()) continue;
      lora.push_back(linear.a);
      lora.push_back(linear.b);
    }
  }
  return {std::move(lora), {head_coefficients}};
}

std::vector<MicroBatch> FetchStep(Sampler* sampler, absl::Span<const Example> examples,
                                  const BinsSpec& bins, int64_t micro_batch_tokens) {
  std::vector<MicroBatch> micro_batches;
  const std::vector<int64_t> items = sampler->NextStep();
  for (const auto& run : SplitByTokens(items, sampler->lengths(), micro_batch_tokens)) {
    micro_batches.push_back(MakeMicroBatch(examples, run, bins));
  }
  return micro_batches;
}

}  // namespace

absl::Status Trainer::Options::Validate() const {
  RETURN_IF_ERROR(CheckBounds("--lr", learning_rate, 0.0, 1.0));
  RETURN_IF_ERROR(CheckBounds("--head-lr", head_learning_rate, 0.0, 1.0));
  RETURN_IF_ERROR(CheckBounds("--warmup-ratio", warmup_ratio, 0.0, 0.9));
  RETURN_IF_ERROR(CheckBounds("--max-grad-norm", max_gradient_norm, 0.0, 1e6));
  return adamw.Validate();
}

absl::StatusOr<std::unique_ptr<Trainer>> Trainer::Create(const Network* network,
                                                         PeftAdapter adapter,
                                                         const Options& options,
                                                         const HeadBasis& head_basis) {
  RETURN_IF_ERROR(options.Validate());
  if (!adapter.weights.score.defined()) {
    return absl::InvalidArgumentError("the adapter has no bins head to train");
  }
  return CatchTorch("preparing the optimizer", [&]() -> absl::StatusOr<std::unique_ptr<Trainer>> {
    return std::unique_ptr<Trainer>(new Trainer(network, std::move(adapter), options, head_basis));
  });
}

Trainer::Trainer(const Network* network, PeftAdapter adapter, const Options& options,
                 const HeadBasis& head_basis)
    : network_(network),
      adapter_(std::move(adapter)),
      options_(options),
      head_basis_(head_basis),
      head_coefficients_(head_basis_.Coefficients(adapter_.weights.score)),
      optimizer_(ParameterGroups(adapter_.weights, head_coefficients_), options.adamw) {}

void Trainer::PlanSteps(int64_t total_steps) {
  schedule_ = LrSchedule::WithWarmupRatio(total_steps, options_.warmup_ratio);
}

AdapterWeights Trainer::CopyWeights() const {
  AdapterWeights copy = adapter_.weights;
  for (auto& layer : copy.layers) {
    for (LoraWeights& linear : layer) {
      if (!linear.defined()) continue;
      linear.a = linear.a.detach().clone();
      linear.b = linear.b.detach().clone();
    }
  }
  copy.score = copy.score.detach().clone();
  return copy;
}

StateTensors Trainer::State() const {
  AdapterWeights lora = adapter_.weights;
  lora.score = at::Tensor();  // follows from the coefficients
  StateTensors state = NamedTensors(lora);
  state["head"] = head_coefficients_;
  // In the order of ParameterGroups.
  std::vector<std::string> names;
  for (size_t layer = 0; layer < lora.layers.size(); ++layer) {
    for (size_t p = 0; p < lora.layers[layer].size(); ++p) {
      if (!lora.layers[layer][p].defined()) continue;
      for (const char* part : {"a", "b"}) {
        names.push_back(absl::StrCat("lora.", layer, ".", p, ".", part));
      }
    }
  }
  names.push_back("head");
  const std::vector<AdamW::Moments> moments = optimizer_.moments();
  PRICER_CHECK(moments.size() == names.size());
  for (size_t i = 0; i < names.size(); ++i) {
    state[names[i] + ".first_moment"] = moments[i].first;
    state[names[i] + ".second_moment"] = moments[i].second;
  }
  return state;
}

absl::Status Trainer::Restore(const StateTensors& state, int64_t step) {
  return CatchTorch("restoring the trainer", [&]() -> absl::Status {
    RETURN_IF_ERROR(FillTensors(state, State()));
    const at::NoGradGuard no_grad;
    adapter_.weights.score = head_basis_.Score(head_coefficients_);
    optimizer_.set_steps(step);
    step_ = step;
    return absl::OkStatus();
  });
}

// Gradients add up over the micro-batches of one step and are zeroed before the first; activations
// live for one micro-batch; moments and weights for the whole run.
absl::StatusOr<double> Trainer::AccumulateGradients(absl::Span<const MicroBatch> micro_batches,
                                                    double rows,
                                                    const std::function<bool()>& stop) {
  const AdapterWeights* const weights = &adapter_.weights;
  double loss_sum = 0;
  optimizer_.ZeroGradients();
  for (const MicroBatch& micro_batch : micro_batches) {
    if (stop && stop()) return absl::CancelledError("training step");
    const at::Tensor hidden_bh = network_->Forward(micro_batch.batch, {&weights, 1});
    const at::Tensor logits = Network::BinLogits(hidden_bh, head_basis_.Score(head_coefficients_));
    const at::Tensor loss = CrossEntropySum(logits, micro_batch.targets) / rows;
    loss.backward();
    loss_sum += loss.item<double>();
  }
  return loss_sum;
}

absl::StatusOr<StepResult> Trainer::TrainStep(absl::Span<const MicroBatch> micro_batches,
                                              const std::function<bool()>& stop) {
  StepResult result;
  result.step = step_;
  for (const MicroBatch& micro_batch : micro_batches) {
    result.rows += micro_batch.batch.sequence_count();
    result.tokens += micro_batch.batch.token_count();
  }
  const std::string what = absl::StrCat("training step ", step_);
  return CatchTorch(what, [&]() -> absl::StatusOr<StepResult> {
    ASSIGN_OR_RETURN(result.loss,
                     AccumulateGradients(micro_batches, static_cast<double>(result.rows), stop));
    result.gradient_norm = optimizer_.ClipGradients(options_.max_gradient_norm);
    if (!std::isfinite(result.loss) || !std::isfinite(result.gradient_norm)) {
      return absl::InternalError(absl::StrCat(what, ": loss is ", result.loss,
                                              " and gradient norm ", result.gradient_norm,
                                              "; a lower learning rate may help"));
    }
    const double factor = schedule_.Factor(step_);
    result.learning_rate = options_.learning_rate * factor;
    result.head_learning_rate = options_.head_learning_rate * factor;
    optimizer_.Step({result.learning_rate, result.head_learning_rate});
    const at::NoGradGuard no_grad;
    adapter_.weights.score = head_basis_.Score(head_coefficients_);
    ++step_;
    return result;
  });
}

namespace {

// The one run of Train: what it keeps between steps.
struct TrainRun {
  Trainer* const trainer;
  const TrainPlan& plan;
  const TrainHooks& hooks;
  TrainPosition position;
  absl::Time last_save;
  TrainOutcome& outcome;

  int64_t ValidationEvery() const {
    return plan.validation_every > 0 ? plan.validation_every : (position.total_steps + 3) / 4;
  }

  bool AtEnd() const { return trainer->step() >= position.total_steps; }

  void FitTimeBudget() {
    if (trainer->step() != kTimedSteps || plan.time_budget == absl::InfiniteDuration()) return;
    const double affordable =
        absl::FDivDuration(plan.time_budget, position.step_time) * static_cast<double>(kTimedSteps);
    const int64_t steps = std::max(kTimedSteps, static_cast<int64_t>(affordable));
    position.total_steps = std::min(position.total_steps, steps);
    trainer->PlanSteps(position.total_steps);
  }

  absl::Status Save() {
    if (!hooks.save) return absl::OkStatus();
    RETURN_IF_ERROR(hooks.save(position, outcome));
    last_save = plan.clock->Now();
    return absl::OkStatus();
  }

  absl::Status SaveIfDue() {
    // After the last step publication comes next.
    if (AtEnd() || plan.clock->Now() - last_save < plan.save_interval) return absl::OkStatus();
    return Save();
  }

  // Cancelled where the stop hook says so; nothing has changed then.
  absl::Status Step(Sampler* sampler, absl::Span<const Example> examples, const BinsSpec& bins) {
    const absl::Time start = plan.clock->Now();
    const std::vector<MicroBatch> micro_batches =
        FetchStep(sampler, examples, bins, plan.micro_batch_tokens);
    ASSIGN_OR_RETURN(const StepResult result, trainer->TrainStep(micro_batches, hooks.stop));
    outcome.steps = trainer->step();
    position.step_time += plan.clock->Now() - start;
    position.validated = false;
    FitTimeBudget();
    return hooks.on_step(result, position.total_steps);
  }

  absl::Status ValidateIfDue() {
    const int64_t done = trainer->step();
    if (done == 0 || position.validated) return absl::OkStatus();
    if (!AtEnd() && done % ValidationEvery() != 0) return absl::OkStatus();
    AdapterWeights weights = trainer->CopyWeights();
    ASSIGN_OR_RETURN(Validation validation, hooks.validate(weights));
    RETURN_IF_ERROR(hooks.on_validation(done, validation.metrics));
    position.validated = true;
    const std::optional<Validation>& best = outcome.best_validation;
    if (best.has_value() && best->metrics.mae <= validation.metrics.mae) return absl::OkStatus();
    outcome.best = std::move(weights);
    outcome.best_step = done;
    outcome.best_validation = std::move(validation);
    return absl::OkStatus();
  }
};

}  // namespace

absl::Status Train(Trainer* trainer, Sampler* sampler, absl::Span<const Example> examples,
                   const BinsSpec& bins, const TrainPlan& plan, const TrainHooks& hooks,
                   TrainOutcome* outcome) {
  TrainRun run{.trainer = trainer,
               .plan = plan,
               .hooks = hooks,
               .position = {},
               .last_save = plan.clock->Now(),
               .outcome = *outcome};
  if (plan.resumed.has_value()) {
    run.position = *plan.resumed;
    for (int64_t step = 0; step < trainer->step(); ++step) sampler->NextStep();
  } else {
    run.position.total_steps = sampler->CountSteps(plan.max_steps);
  }
  trainer->PlanSteps(run.position.total_steps);
  outcome->steps = trainer->step();
  absl::Status status = run.ValidateIfDue();
  while (status.ok() && !run.AtEnd()) {
    status = run.Step(sampler, examples, bins);
    if (status.ok()) status = run.ValidateIfDue();
    if (status.ok()) status = run.SaveIfDue();
  }
  outcome->stopped = absl::IsCancelled(status);
  if (!outcome->stopped) return status;
  return trainer->step() > 0 ? run.Save() : absl::OkStatus();
}

}  // namespace pricer
