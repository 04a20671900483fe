#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "model/lora.h"
#include "trainer/step_watch.h"

namespace pricer {

// Tensors by name; shared, not copied.
using StateTensors = std::map<std::string, at::Tensor>;

// "lora.<layer>.<projection>.a" and ".b", and "score" where it is defined.
StateTensors NamedTensors(const AdapterWeights& weights);

// Copies the values of `from` into the tensors `into`. DataLoss names what is missing, extra or of
// another shape or dtype; nothing is copied then.
absl::Status FillTensors(const StateTensors& from, const StateTensors& into);

// What a tuning run needs to go on as if it had never stopped. What is not here follows from the
// options, the data and the step: the order of the items and the learning rates.
struct TrainingState {
  int64_t step = 0;         // steps made
  int64_t total_steps = 0;  // as planned, with a time budget already counted in
  absl::Duration step_time;
  int64_t stale_validations = 0;  // since the best
  // Whether the validation that is due after `step` steps is among `best`.
  bool validated = false;
  StateTensors trainer;  // Trainer::State
  // Of the best validation so far; empty, undefined and 0 before the first.
  StateTensors best;
  at::Tensor best_scores;  // [items, bins or whole prices] fp32
  int64_t best_step = 0;
  // What the next step's loss and gradient norm are held against.
  StepWatch::State watch;
  // What the run was started with, as texts by name: options, digests of base and data, threads.
  std::map<std::string, std::string> identity;
};

// "<directory>/state.safetensors", in which a state is.
std::string TrainingStateFile(const std::string& directory);

// One file in an existing directory, flushed to the disk. Same state, same bytes.
absl::Status WriteTrainingState(const TrainingState& state, const std::string& directory);
// DataLoss names the file and what is missing or wrong in it.
absl::StatusOr<TrainingState> ReadTrainingState(const std::string& directory);

// FailedPrecondition names the first entry that is in both and differs.
absl::Status CheckSameIdentity(const std::map<std::string, std::string>& saved,
                               const std::map<std::string, std::string>& now);

}  // namespace pricer
