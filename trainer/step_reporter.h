#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/progress.h"
#include "trainer/dataset.h"
#include "trainer/event_file.h"
#include "trainer/memory_usage.h"
#include "trainer/metrics.h"
#include "trainer/run_log.h"
#include "trainer/step_watch.h"
#include "trainer/trainer.h"

namespace pricer {

// What the line of a running job says beside how far it is. Speeds are means over all steps.
struct LiveFigures {
  double items_per_second = 0;
  double tokens_per_second = 0;
  std::optional<double> gemm_share = std::nullopt;
  MemoryUsage memory = {};
  double loss = 0;  // of the last step
};

// "12.3 items/s  789 tokens/s  67 % of GEMM rate  1.21 GiB, peak 1.89  loss 3.2145"; what is
// absent is left out.
std::string LiveText(const LiveFigures& figures);

// Tells people (standard error), metrics.jsonl and an event file beside it how a tuning run goes,
// and warns of steps that stand out. Speeds leave validations out. One thread.
class StepReporter {
 public:
  struct Options {
    // Of a run that goes on: the steps that were made, the time that they took and what the watch
    // knew of them.
    int64_t steps_before = 0;
    absl::Duration time_before = absl::ZeroDuration();
    StepWatch::State watch = {};
    // Floating-point operations a second that shares are of; 0 = there are no shares.
    double gemm_rate = 0;
  };

  // Makes the event file. `log` and `data`, which the steps' rows are of, must outlive the
  // reporter. DataLoss where `watch` is no state of a watch.
  static absl::StatusOr<std::unique_ptr<StepReporter>> Create(RunLog* log, const Dataset* data,
                                                              const Options& options);

  absl::Status Step(const StepResult& result, int64_t total_steps);
  absl::Status Validated(int64_t step, const Metrics& metrics);

  StepWatch::State watch_state() const { return watch_.state(); }

 private:
  StepReporter(RunLog* log, const Dataset* data, const Options& options, StepWatch watch,
               EventFile events);
  std::optional<double> GemmShare(double flops, double seconds) const;
  absl::Status AddEvents(const StepResult& result, const MemoryUsage& memory);
  absl::Status WarnIfItStandsOut(const StepResult& result);

  RunLog* const log_;
  const Dataset* const data_;
  const Options options_;
  StepWatch watch_;
  EventFile events_;
  Progress bar_;
  int64_t rows_ = 0;
  int64_t tokens_ = 0;
  double flops_ = 0;
  absl::Duration validation_time_;
  absl::Duration step_end_;
};

}  // namespace pricer
