#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "model/adapter_directory.h"
#include "trainer/metrics.h"
#include "trainer/tuning_options.h"

// From files to a published adapter: what `pricer-trainer tune` does.

namespace pricer {

struct TuningOutcome {
  // Empty directory where the run was interrupted: nothing was published.
  PublishedVersion published;
  std::string run_directory;
  int64_t steps = 0;
  int64_t best_step = 0;
  bool out_of_patience = false;  // the steps ended early
  Metrics validation;
  bool interrupted = false;
  // Where it was interrupted: it can go on.
  bool resumable = false;
  // Where it was interrupted because another process of the group is gone: which one.
  std::string lost;
  int64_t rejects = 0;
  int64_t recomputed_layers = 0;  // to fit --memory-budget
};

// Progress goes to standard error. Ends early, with `interrupted`, once InterruptRequested(): the
// step that has begun is dropped and a checkpoint written to <run>/checkpoints. A run that goes on
// publishes the same bytes as one that was never stopped, unless it has a time budget. Where
// the adapter cannot be published, or a step fails after a validation, the best tensors are kept as
// a version under <run>/adapters, which the error names. Of several processes only rank 0 writes
// files, but for what it sets aside in the temporary directory, and speaks to people; where one is
// gone, the others end as if interrupted, or, where nothing was reached, with Unavailable.
absl::StatusOr<TuningOutcome> RunTuning(const TuningOptions& options);

}  // namespace pricer
