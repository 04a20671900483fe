#include "trainer/trainer.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/check.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "model/ops/cross_entropy.h"
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
  if (!head_coefficients.defined()) return {std::move(lora)};
  return {std::move(lora), {head_coefficients}};
}

PeftAdapter PlaceAdapter(PeftAdapter adapter, const Network& network) {
  adapter.weights = network.Place(adapter.weights);
  return adapter;
}

LoraRanks RanksOf(const AdapterWeights& weights) {
  LoraRanks ranks(weights.layers.size());
  for (size_t layer = 0; layer < ranks.size(); ++layer) {
    for (size_t p = 0; p < weights.layers[layer].size(); ++p) {
      const LoraWeights& linear = weights.layers[layer][p];
      ranks[layer][p] = linear.defined() ? linear.a.size(0) : 0;
    }
  }
  return ranks;
}

void AddWork(const PackedBatch& batch, BatchWork* work) {
  for (int64_t b = 0; b < batch.sequence_count(); ++b) {
    work->Add(batch.offsets[b + 1] - batch.offsets[b],
              batch.answer_offsets[b + 1] - batch.answer_offsets[b]);
  }
}

struct FetchedStep {
  std::vector<MicroBatch> micro_batches;  // rank by rank
  StepShare own;
};

FetchedStep FetchStep(Sampler* sampler, const TrainHooks& hooks, int64_t micro_batch_tokens,
                      const ProcessGroup* group) {
  FetchedStep step;
  const std::vector<int64_t> items = sampler->NextStep();
  const int size = group == nullptr ? 1 : group->size();
  const std::vector<std::vector<int64_t>> shares = ShareByTokens(items, sampler->lengths(), size);
  for (int rank = 0; rank < size; ++rank) {
    const size_t begin = step.micro_batches.size();
    for (const auto& run : SplitByTokens(shares[rank], sampler->lengths(), micro_batch_tokens)) {
      step.micro_batches.push_back(hooks.make_micro_batch(run));
    }
    if (group == nullptr || group->rank() == rank) step.own = {begin, step.micro_batches.size()};
  }
  return step;
}

// "row 3 (id a), row 8 (id b) and 30 more".
std::string NameRows(absl::Span<const int64_t> rows, const TrainHooks& hooks) {
  constexpr size_t kMostNamed = 16;
  std::vector<std::string> names;
  for (int64_t row : rows.first(std::min(rows.size(), kMostNamed))) {
    names.push_back(hooks.name_row(row));
  }
  std::string text = absl::StrJoin(names, ", ");
  if (rows.size() > kMostNamed) absl::StrAppend(&text, " and ", rows.size() - kMostNamed, " more");
  return text;
}

}  // namespace

absl::Status Trainer::Options::Validate() const {
  RETURN_IF_ERROR(CheckBounds("--lr", learning_rate, 0.0, 1.0));
  RETURN_IF_ERROR(CheckBounds("--head-lr", head_learning_rate, 0.0, 1.0));
  RETURN_IF_ERROR(CheckBounds("--warmup-ratio", warmup_ratio, 0.0, 0.9));
  RETURN_IF_ERROR(CheckBounds<int64_t>("--warmup-steps", warmup_steps, 0, kManyItems));
  RETURN_IF_ERROR(CheckBounds("--max-grad-norm", max_gradient_norm, 0.0, 1e6));
  RETURN_IF_ERROR(CheckBounds<int64_t>("recomputed layers", recomputed_layers, 0, kManyItems));
  return adamw.Validate();
}

absl::StatusOr<std::unique_ptr<Trainer>> Trainer::Create(const Network* network,
                                                         PeftAdapter adapter,
                                                         const Options& options,
                                                         const HeadBasis& head_basis,
                                                         ProcessGroup* group) {
  RETURN_IF_ERROR(options.Validate());
  if ((adapter.config.task == PeftTask::kSeqCls) != adapter.weights.score.defined()) {
    return absl::InvalidArgumentError(adapter.weights.score.defined()
                                          ? "the adapter is for CAUSAL_LM but has a bins head"
                                          : "the adapter has no bins head to train");
  }
  return CatchTorch("preparing the optimizer", [&]() -> absl::StatusOr<std::unique_ptr<Trainer>> {
    return std::unique_ptr<Trainer>(
        new Trainer(network, std::move(adapter), options, head_basis, group));
  });
}

Trainer::Trainer(const Network* network, PeftAdapter adapter, const Options& options,
                 const HeadBasis& head_basis, ProcessGroup* group)
    : network_(network),
      adapter_(PlaceAdapter(std::move(adapter), *network)),
      options_(options),
      head_basis_(head_basis.To(network->device())),
      head_coefficients_(has_bins_head() ? head_basis_.Coefficients(adapter_.weights.score)
                                         : at::Tensor()),
      ranks_(RanksOf(adapter_.weights)),
      group_(group),
      optimizer_(ParameterGroups(adapter_.weights, head_coefficients_), options.adamw) {}

void Trainer::PlanSteps(int64_t total_steps) {
  schedule_ = LrSchedule::WithWarmupRatio(total_steps, options_.warmup_ratio, options_.schedule);
  if (options_.warmup_steps > 0) schedule_.warmup_steps = options_.warmup_steps;
}

AdapterWeights Trainer::CopyWeights() const { return CopyTo(adapter_.weights, at::kCPU); }

StateTensors Trainer::State() const {
  AdapterWeights lora = adapter_.weights;
  lora.score = at::Tensor();  // follows from the coefficients
  StateTensors state = NamedTensors(lora);
  if (has_bins_head()) state["head"] = head_coefficients_;
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
  if (has_bins_head()) names.push_back("head");
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
    if (has_bins_head()) adapter_.weights.score = head_basis_.Score(head_coefficients_);
    optimizer_.set_steps(step);
    step_ = step;
    return absl::OkStatus();
  });
}

at::Tensor Trainer::Logits(const at::Tensor& hidden) const {
  if (!has_bins_head()) return network_->Logits(hidden);
  return Network::BinLogits(hidden, head_basis_.Score(head_coefficients_));
}

double Trainer::StepFlops(const BatchWork& work) const {
  const ModelConfig& config = network_->config();
  HeadWork head;
  head.trained = has_bins_head();
  head.rows = head.trained ? adapter_.weights.score.size(0) : config.vocabulary_size;
  return ForwardFlops(config, ranks_, head, work) + BackwardFlops(config, ranks_, head, work);
}

absl::Status Trainer::StepError(absl::string_view problem, std::vector<int64_t> rows) {
  failed_rows_ = std::move(rows);
  return absl::InternalError(absl::StrCat("training step ", step_, ": ", problem));
}

// Gradients add up over the micro-batches of one step and are zeroed before the first; activations
// live for one micro-batch, or one of the `parts` that each is cut into; moments and weights for
// the whole run. Losses stay where they are computed until the last is launched.
absl::StatusOr<double> Trainer::AccumulateGradients(absl::Span<const MicroBatch> micro_batches,
                                                    const StepShare& share, double targets,
                                                    int64_t parts,
                                                    const std::function<bool()>& stop) {
  const AdapterWeights* const weights = &adapter_.weights;
  LoraDropout dropout;
  dropout.probability = adapter_.config.dropout;
  dropout.seed = options_.dropout_seed;
  dropout.step = step_;
  std::vector<at::Tensor> losses;
  std::vector<size_t> numbers;  // of the micro-batches that they are of
  optimizer_.ZeroGradients();
  for (size_t i = share.begin; i < std::min(share.end, micro_batches.size()); ++i) {
    for (const MicroBatch& part : Split(micro_batches[i], parts)) {
      if (stop && stop()) return absl::CancelledError("training step");
      dropout.rows = part.rows;
      const at::Tensor hidden =
          network_->Forward(part.batch, {&weights, 1}, &dropout, options_.recomputed_layers);
      const at::Tensor loss =
          CrossEntropySum(Logits(hidden), network_->Place(part.targets)) / targets;
      loss.backward();
      losses.push_back(loss.detach());
      numbers.push_back(i);
    }
  }
  if (losses.empty()) return 0.0;
  const at::Tensor values = at::stack(losses).to(at::kCPU, at::kDouble);
  double sum = 0;
  for (size_t l = 0; l < losses.size(); ++l) {
    const double value = values.const_data_ptr<double>()[l];
    if (!std::isfinite(value)) {
      failed_micro_batch_ = numbers[l];
      return StepError(absl::StrCat("the loss is ", value, "; a lower learning rate may help"),
                       micro_batches[numbers[l]].rows);
    }
    sum += value;
  }
  return sum;
}

// What a pass has added to the gradients before it ran out of memory is unknown, so all of them are
// computed again.
absl::StatusOr<double> Trainer::AccumulateWithinMemory(absl::Span<const MicroBatch> micro_batches,
                                                       const StepShare& share, double targets,
                                                       const std::function<bool()>& stop) {
  try {
    return AccumulateGradients(micro_batches, share, targets, memory_parts_, stop);
  } catch (const c10::OutOfMemoryError& error) {
    memory_parts_ *= 2;
    LogWarning(absl::StrCat("training step ", step_, ": out of memory; from here on each ",
                            "micro-batch is computed in ", memory_parts_, " parts"));
  }
  try {
    return AccumulateGradients(micro_batches, share, targets, memory_parts_, stop);
  } catch (const c10::OutOfMemoryError& error) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "training step ", step_, ": out of memory twice in a row, the second time with each ",
        "micro-batch in ", memory_parts_, " parts; lower --micro-batch-tokens, or set ",
        "--memory-budget so that activations are computed twice instead of kept: ",
        error.what_without_backtrace()));
  }
}

absl::StatusOr<double> Trainer::AddUp(absl::StatusOr<double> own,
                                      absl::Span<const MicroBatch> micro_batches) {
  if (group_ == nullptr || group_->size() == 1) return own;
  // The loss, on how many processes the step was stopped, and of each which micro-batch failed,
  // counted from 1.
  const at::Tensor verdict = at::zeros({2 + group_->size()}, at::kDouble);
  double* const values = verdict.mutable_data_ptr<double>();
  if (own.ok()) {
    values[0] = *own;
  } else if (absl::IsCancelled(own.status())) {
    values[1] = 1;
  } else {
    values[2 + group_->rank()] = static_cast<double>(failed_micro_batch_ + 1);
  }
  RETURN_IF_ERROR(group_->Sum(verdict));
  if (!own.ok()) return own;
  for (int rank = 0; rank < group_->size(); ++rank) {
    const auto failed = static_cast<size_t>(values[2 + rank]);
    if (failed == 0) continue;
    return StepError(
        absl::StrCat("the loss is not finite on rank ", rank, "; a lower learning rate may help"),
        micro_batches[failed - 1].rows);
  }
  if (values[1] > 0) return absl::CancelledError("training step");
  std::vector<at::Tensor> flat;
  for (const at::Tensor& gradient : optimizer_.gradients()) flat.push_back(gradient.flatten());
  const at::Tensor sum = at::cat(flat);
  RETURN_IF_ERROR(group_->Sum(sum));
  int64_t begin = 0;
  for (const at::Tensor& gradient : optimizer_.gradients()) {
    gradient.copy_(sum.narrow(0, begin, gradient.numel()).view_as(gradient));
    begin += gradient.numel();
  }
  return values[0];
}

absl::StatusOr<StepResult> Trainer::TrainStep(absl::Span<const MicroBatch> micro_batches,
                                              const std::function<bool()>& stop,
                                              const StepShare& share) {
  StepResult result;
  result.step = step_;
  BatchWork work;
  std::vector<int64_t>& rows = result.row_numbers;
  for (const MicroBatch& micro_batch : micro_batches) {
    AddWork(micro_batch.batch, &work);
    result.rows += micro_batch.batch.sequence_count();
    result.tokens += micro_batch.batch.token_count();
    result.targets += micro_batch.target_count();
    rows.insert(rows.end(), micro_batch.rows.begin(), micro_batch.rows.end());
  }
  if (result.targets == 0) return StepError("there is no target", rows);
  result.flops = StepFlops(work);
  const std::string what = absl::StrCat("training step ", step_);
  return CatchTorch(what, [&]() -> absl::StatusOr<StepResult> {
    const auto targets = static_cast<double>(result.targets);
    ASSIGN_OR_RETURN(result.loss, AddUp(AccumulateWithinMemory(micro_batches, share, targets, stop),
                                        micro_batches));
    result.gradient_norm = optimizer_.ClipGradients(options_.max_gradient_norm).item<double>();
    if (!std::isfinite(result.gradient_norm)) {
      return StepError(absl::StrCat("the loss is ", result.loss, " and the gradient norm ",
                                    result.gradient_norm, "; a lower learning rate may help"),
                       rows);
    }
    const double factor = schedule_.Factor(step_);
    result.learning_rate = options_.learning_rate * factor;
    std::vector<double> rates = {result.learning_rate};
    if (has_bins_head()) {
      result.head_learning_rate = options_.head_learning_rate * factor;
      rates.push_back(result.head_learning_rate);
    }
    optimizer_.Step(rates);
    const at::NoGradGuard no_grad;
    if (has_bins_head()) adapter_.weights.score = head_basis_.Score(head_coefficients_);
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

  bool OutOfPatience() const {
    return plan.patience > 0 && position.stale_validations >= plan.patience;
  }

  bool AtEnd() const { return trainer->step() >= position.total_steps || OutOfPatience(); }

  absl::Status FitTimeBudget() {
    if (trainer->step() != kTimedSteps || plan.time_budget == absl::InfiniteDuration()) {
      return absl::OkStatus();
    }
    if (trainer->group() != nullptr) {
      double seconds = absl::ToDoubleSeconds(position.step_time);
      RETURN_IF_ERROR(trainer->group()->Broadcast(&seconds));
      position.step_time = absl::Seconds(seconds);
    }
    const double affordable =
        absl::FDivDuration(plan.time_budget, position.step_time) * static_cast<double>(kTimedSteps);
    const int64_t steps = std::max(kTimedSteps, static_cast<int64_t>(affordable));
    position.total_steps = std::min(position.total_steps, steps);
    trainer->PlanSteps(position.total_steps);
    return absl::OkStatus();
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
  absl::Status Step(Sampler* sampler) {
    const absl::Time start = plan.clock->Now();
    const FetchedStep step = FetchStep(sampler, hooks, plan.micro_batch_tokens, trainer->group());
    absl::StatusOr<StepResult> made = trainer->TrainStep(step.micro_batches, hooks.stop, step.own);
    if (absl::IsInternal(made.status()) && !trainer->failed_rows().empty()) {
      return absl::InternalError(
          absl::StrCat(made.status().message(), "; of ", NameRows(trainer->failed_rows(), hooks)));
    }
    RETURN_IF_ERROR(made.status());
    made->time = plan.clock->Now() - start;
    outcome.steps = trainer->step();
    position.step_time += made->time;
    position.validated = false;
    RETURN_IF_ERROR(FitTimeBudget());
    return hooks.on_step(*made, position.total_steps);
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
    ++position.stale_validations;
    if (best.has_value() && best->metrics.mae <= validation.metrics.mae) return absl::OkStatus();
    position.stale_validations = 0;
    outcome.best = std::move(weights);
    outcome.best_step = done;
    outcome.best_validation = std::move(validation);
    return absl::OkStatus();
  }
};

}  // namespace

absl::Status Train(Trainer* trainer, Sampler* sampler, const TrainPlan& plan,
                   const TrainHooks& hooks, TrainOutcome* outcome) {
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
    status = run.Step(sampler);
    if (status.ok()) status = run.ValidateIfDue();
    if (status.ok()) status = run.SaveIfDue();
  }
  outcome->stopped = absl::IsCancelled(status);
  outcome->out_of_patience = run.OutOfPatience();
  if (absl::IsUnavailable(status) && trainer->step() > 0) RETURN_IF_ERROR(run.Save());
  if (!outcome->stopped) return status;
  return trainer->step() > 0 ? run.Save() : absl::OkStatus();
}

}  // namespace pricer
