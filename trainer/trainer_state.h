#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace pricer {

// What metrics.jsonl does not say.
struct TrainerStateOptions {
  // An epoch. REQUIRES: >= 1.
  int64_t training_items = 0;
  // As planned; 0 = none were, but steps or time: then as many as were begun.
  int64_t epochs = 0;
  // Where the best adapter is, relative to the run's directory; empty = nowhere.
  std::string best_model_checkpoint = "";
};

// A run's metrics as transformers' Trainer leaves them behind, for notebooks and tools that plot
// its trainer_state.json: the fields of transformers.TrainerState as far as they are known, with
// `log_history` of
//
// - an entry for each step: step, epoch, loss, grad_norm, learning_rate, and the line's other
//   numbers under their own names;
// - an entry for each validation: step, epoch, and its numbers, as eval_mae and so on;
// - a last one for all steps: step, epoch, train_loss (their mean), train_runtime (seconds without
//   validations), train_samples_per_second, train_steps_per_second.
//
// best_metric is the lowest eval_mae, of which the first counts, as it does in Train.

// `metrics` are the lines of a metrics.jsonl; a line that is neither step nor validation is passed
// over. DataLoss names `source`, line and field where one is not as RunLog writes it.
absl::StatusOr<std::string> TrainerStateJson(absl::string_view metrics, absl::string_view source,
                                             const TrainerStateOptions& options);

// TrainerStateJson from metrics.jsonl to trainer_state.json, both in `run_directory`.
absl::Status WriteTrainerState(const std::string& run_directory,
                               const TrainerStateOptions& options);

}  // namespace pricer
