#include "trainer/step_reporter.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "trainer/report.h"

namespace pricer {

namespace {

Progress::Options BarOptions(int64_t steps_before) {
  Progress::Options options = StderrProgress("tuning", "steps", 0);
  options.done_before = steps_before;
  return options;
}

}  // namespace

StepReporter::StepReporter(RunLog* log, int64_t steps_before, absl::Duration time_before)
    : log_(log), time_before_(time_before), bar_(stderr, BarOptions(steps_before)) {}

absl::Status StepReporter::Step(const StepResult& result, int64_t total_steps) {
  rows_ += result.rows;
  tokens_ += result.tokens;
  step_end_ = bar_.elapsed();
  const double seconds = absl::ToDoubleSeconds(step_end_ - validation_time_);
  bar_.set_total(total_steps);
  bar_.Update(result.step + 1,
              absl::StrFormat("%.1f items/s  %.0f tokens/s  loss %.4f",
                              static_cast<double>(rows_) / seconds,
                              static_cast<double>(tokens_) / seconds, result.loss));
  return log_->Append({{"step", static_cast<double>(result.step + 1)},
                       {"total_steps", static_cast<double>(total_steps)},
                       {"loss", result.loss},
                       {"gradient_norm", result.gradient_norm},
                       {"learning_rate", result.learning_rate},
                       {"head_learning_rate", result.head_learning_rate},
                       {"rows", static_cast<double>(result.rows)},
                       {"tokens", static_cast<double>(result.tokens)},
                       {"seconds", seconds + absl::ToDoubleSeconds(time_before_)}});
}

absl::Status StepReporter::Validated(int64_t step, const Metrics& metrics) {
  validation_time_ += bar_.elapsed() - step_end_;
  bar_.Print(absl::StrCat("after step ", step, " on ", metrics.items,
                          " validation items: ", MetricsLine(metrics)));
  return log_->AppendValidation(step, metrics);
}

}  // namespace pricer
