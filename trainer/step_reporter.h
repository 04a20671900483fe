#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "trainer/progress.h"
#include "trainer/run_log.h"
#include "trainer/trainer.h"

namespace pricer {

// Tells people (standard error) and metrics.jsonl how a tuning run goes. Speeds leave validations
// out. One thread.
class StepReporter {
 public:
  // `log` must outlive the reporter. Of a run that goes on: the steps that were made and the time
  // that they took.
  explicit StepReporter(RunLog* log, int64_t steps_before = 0,
                        absl::Duration time_before = absl::ZeroDuration());

  absl::Status Step(const StepResult& result, int64_t total_steps);
  absl::Status Validated(int64_t step, const Metrics& metrics);

 private:
  RunLog* const log_;
  const absl::Duration time_before_;
  Progress bar_;
  int64_t rows_ = 0;
  int64_t tokens_ = 0;
  absl::Duration validation_time_;
  absl::Duration step_end_;
};

}  // namespace pricer
