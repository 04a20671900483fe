#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "base/clock.h"
#include "model/adapter.h"
#include "model/flops.h"
#include "model/network.h"
#include "trainer/head_basis.h"
#include "trainer/loss.h"
#include "trainer/lr_schedule.h"
#include "trainer/metrics.h"
#include "trainer/optimizer.h"
#include "trainer/process_group.h"
#include "trainer/sampler.h"
#include "trainer/training_state.h"

namespace pricer {

struct StepResult {
  int64_t step = 0;          // from 0
  double loss = 0;           // mean over the targets of the step, nats
  double gradient_norm = 0;  // before clipping
  double learning_rate = 0;
  double head_learning_rate = 0;
  int64_t rows = 0;
  int64_t tokens = 0;   // that were computed
  int64_t targets = 0;  // that have a loss: one for each row of a bins head
  // Forward and backward pass, as model/flops.h counts; without what is computed once more.
  double flops = 0;
  std::vector<int64_t> row_numbers;  // MicroBatch::rows of all micro-batches
  absl::Duration time;               // with making the micro-batches; set by Train
};

// Which of a step's micro-batches this process computes; the others of its group compute the rest.
struct StepShare {
  size_t begin = 0;
  size_t end = std::numeric_limits<size_t>::max();  // or beyond the last one
};

// Tunes one adapter over a frozen network: its state is the adapter, the optimizer's moments and
// the step number. An adapter for SEQ_CLS has a bins head, which is trained with it; one for
// CAUSAL_LM is trained on the base's own head, which stays as it is. Everything lies where the
// network does; the host waits for a GPU once a step, at its end. One thread (each step uses ATen's
// intra-op threads).
class Trainer {
 public:
  struct Options {
    double learning_rate = 2e-4;       // of the LoRA tensors
    double head_learning_rate = 5e-4;  // of the score rows
    LrSchedule::Kind schedule = LrSchedule::Kind::kCosine;
    double warmup_ratio = 0.03;
    int64_t warmup_steps = 0;        // instead of the ratio; 0 = the ratio
    double max_gradient_norm = 1.0;  // 0 = gradients are not clipped
    uint64_t dropout_seed = 0;       // of the adapter's dropout, where its config has one
    AdamW::Options adamw = {};
    // Layers whose activations are computed twice instead of kept; see Network::Forward. The result
    // is the same.
    int64_t recomputed_layers = 0;

    // InvalidArgument names the option and its bounds.
    absl::Status Validate() const;
  };

  // `network` and `group` must outlive the trainer. With a group, the trainers of its processes are
  // made alike and make the same steps together. InvalidArgument where the adapter has a bins head
  // and is not for SEQ_CLS or the other way round, or the options are wrong.
  static absl::StatusOr<std::unique_ptr<Trainer>> Create(
      const Network* network, PeftAdapter adapter, const Options& options,
      const HeadBasis& head_basis = HeadBasis::Rows(), ProcessGroup* group = nullptr);

  // The learning rates follow this from the next step on. REQUIRES: total_steps >= 1.
  void PlanSteps(int64_t total_steps);
  void set_schedule(const LrSchedule& schedule) { schedule_ = schedule; }

  // One update from one or more micro-batches: the gradient is that of the mean loss over all their
  // targets, however they are cut and shared. The processes of a group give the same micro-batches
  // and get the same result. The adapter is as it was on an error: Internal where loss or gradient
  // is not finite or there is no target, ResourceExhausted where memory ran out even for half of a
  // micro-batch, Cancelled where `stop`, which may be empty and is asked
  // before each micro-batch, says true on any process, Unavailable where one is gone.
  absl::StatusOr<StepResult> TrainStep(absl::Span<const MicroBatch> micro_batches,
                                       const std::function<bool()>& stop = nullptr,
                                       const StepShare& share = {});

  // MicroBatch::rows of what the latest TrainStep failed on with Internal: the micro-batch whose
  // loss is not finite, or all.
  const std::vector<int64_t>& failed_rows() const { return failed_rows_; }

  // Null where it tunes alone.
  ProcessGroup* group() const { return group_; }

  // Steps made so far.
  int64_t step() const { return step_; }
  const PeftAdapter& adapter() const { return adapter_; }
  // A copy of the tensors as they are now, on the CPU and without gradients.
  AdapterWeights CopyWeights() const;

  // All that the next step depends on but schedule, data and step number, by name: what is trained
  // and the optimizer's moments. The tensors are the trainer's own.
  StateTensors State() const;
  // Makes this trainer, which has made no step, what the one was whose State this is. DataLoss
  // names a tensor that does not fit; the trainer is as it was then.
  absl::Status Restore(const StateTensors& state, int64_t step);

 private:
  Trainer(const Network* network, PeftAdapter adapter, const Options& options,
          const HeadBasis& head_basis, ProcessGroup* group);
  bool has_bins_head() const { return adapter_.config.task == PeftTask::kSeqCls; }
  at::Tensor Logits(const at::Tensor& hidden) const;
  double StepFlops(const BatchWork& work) const;
  // The sum of the losses of the share's targets, divided by `targets`.
  absl::StatusOr<double> AccumulateGradients(absl::Span<const MicroBatch> micro_batches,
                                             const StepShare& share, double targets, int64_t parts,
                                             const std::function<bool()>& stop);
  // The same in smaller parts where memory runs out; ResourceExhausted where it does so again.
  absl::StatusOr<double> AccumulateWithinMemory(absl::Span<const MicroBatch> micro_batches,
                                                const StepShare& share, double targets,
                                                const std::function<bool()>& stop);
  // From what the shares have come to, the same on every process: the loss, and in place of the
  // gradients their sums.
  absl::StatusOr<double> AddUp(absl::StatusOr<double> own,
                               absl::Span<const MicroBatch> micro_batches);
  absl::Status StepError(absl::string_view problem, std::vector<int64_t> rows);

  const Network* const network_;
  PeftAdapter adapter_;
  const Options options_;
  const HeadBasis head_basis_;
  const at::Tensor head_coefficients_;  // undefined without a bins head
  const LoraRanks ranks_;
  ProcessGroup* const group_;
  LrSchedule schedule_;
  AdamW optimizer_;
  int64_t memory_parts_ = 1;  // that each micro-batch is cut into
  int64_t step_ = 0;
  std::vector<int64_t> failed_rows_;
  size_t failed_micro_batch_ = 0;
};

// Where a run stands, beside trainer and outcome.
struct TrainPosition {
  int64_t total_steps = 0;
  absl::Duration step_time = absl::ZeroDuration();  // of all steps, validations left out
  // Validations since the best one.
  int64_t stale_validations = 0;
  // Whether the validation that is due after the trainer's steps was done.
  bool validated = false;
};

// What Train does besides steps.
struct TrainPlan {
  int64_t max_steps = 1;
  int64_t micro_batch_tokens = 1024;
  // Steps between two validations; there is always one after the last step. 0 = four in the whole
  // run.
  int64_t validation_every = 0;
  // After a few steps max_steps is lowered to what this time allows at their speed (validation not
  // counted).
  absl::Duration time_budget = absl::InfiniteDuration();
  // Validations in a row without a lower MAE after which the run ends early; 0 = never.
  int64_t patience = 0;
  // Between two calls of the save hook; 0 = after every step.
  absl::Duration save_interval = absl::Minutes(10);
  // Of a run that goes on: the trainer is restored, the outcome holds the best so far.
  std::optional<TrainPosition> resumed = std::nullopt;
  const Clock* clock = Clock::System();
};

// What the adapter makes of the held-out items.
struct Validation {
  Metrics metrics;
  // What the metrics were measured from; [items][bins or whole prices].
  std::vector<std::vector<float>> scores;
};

struct TrainOutcome {
  int64_t steps = 0;
  bool stopped = false;
  bool out_of_patience = false;
  // The tensors that had the lowest validation MAE, and after how many steps.
  AdapterWeights best;
  int64_t best_step = 0;
  std::optional<Validation> best_validation;
};

struct TrainHooks {
  // The examples at these indices, for the trainer's head.
  std::function<MicroBatch(absl::Span<const int64_t> indices)> make_micro_batch;
  // What to call training example `index` in an error: "row 12 (id B00X)".
  std::function<std::string(int64_t index)> name_row;
  std::function<absl::StatusOr<Validation>(const AdapterWeights& weights)> validate;
  // After every step, with the number of steps that the run will have.
  std::function<absl::Status(const StepResult& result, int64_t total_steps)> on_step;
  std::function<absl::Status(int64_t steps_done, const Metrics& metrics)> on_validation;
  // Writes down where the run stands, so that it can go on from there. May be empty.
  std::function<absl::Status(const TrainPosition& position, const TrainOutcome& outcome)> save;
  // Asked before every micro-batch: true ends the run.
  std::function<bool()> stop;
};

// Runs the sampler's steps through the trainer until the plan ends or the stop hook says so, which
// drops the step that has begun and saves what was reached. On an error `outcome` holds what was
// reached before it; one that is about a step names its rows; where a process of the group is gone
// (Unavailable) what was reached is saved too. `sampler` is a new one, also of a run that goes on.
// The processes of a group call this together, each step's items being shared by their tokens; the
// time that a time budget counts is that of rank 0.
absl::Status Train(Trainer* trainer, Sampler* sampler, const TrainPlan& plan,
                   const TrainHooks& hooks, TrainOutcome* outcome);

}  // namespace pricer
