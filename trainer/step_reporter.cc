#include "trainer/step_reporter.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "trainer/report.h"

namespace pricer {

namespace {

Progress::Options BarOptions(int64_t steps_before) {
  Progress::Options options = StderrProgress("tuning", "steps", 0);
  options.done_before = steps_before;
  return options;
}

double Gibibytes(int64_t bytes) { return static_cast<double>(bytes) / (1 << 30); }

}  // namespace

std::string LiveText(const LiveFigures& figures) {
  std::string text = absl::StrFormat("%.1f items/s  %.0f tokens/s", figures.items_per_second,
                                     figures.tokens_per_second);
  if (figures.gemm_share.has_value()) {
    absl::StrAppendFormat(&text, "  %.0f %% of GEMM rate", 100 * *figures.gemm_share);
  }
  const MemoryUsage& memory = figures.memory;
  if (memory.resident_bytes.has_value() && memory.peak_resident_bytes.has_value()) {
    absl::StrAppendFormat(&text, "  %.2f GiB, peak %.2f", Gibibytes(*memory.resident_bytes),
                          Gibibytes(*memory.peak_resident_bytes));
  }
  absl::StrAppendFormat(&text, "  loss %.4f", figures.loss);
  return text;
}

absl::StatusOr<std::unique_ptr<StepReporter>> StepReporter::Create(RunLog* log, const Dataset* data,
                                                                   const Options& options) {
  StepWatch watch({});
  const absl::Status restored = watch.Restore(options.watch);
  if (!restored.ok()) {
    return absl::DataLossError(absl::StrCat("the steps before: ", restored.message()));
  }
  ASSIGN_OR_RETURN(EventFile events, EventFile::Create(log->directory(), options.steps_before + 1));
  return std::unique_ptr<StepReporter>(
      new StepReporter(log, data, options, std::move(watch), std::move(events)));
}

StepReporter::StepReporter(RunLog* log, const Dataset* data, const Options& options,
                           StepWatch watch, EventFile events)
    : log_(log),
      data_(data),
      options_(options),
      watch_(std::move(watch)),
      events_(std::move(events)),
      bar_(stderr, BarOptions(options.steps_before)) {
  if (options.gemm_rate > 0) {
    bar_.Print(
        absl::StrFormat("GEMM rate: %.4g GFLOP/s, which the network's matrix products reach "
                        "alone",
                        options.gemm_rate / 1e9));
  }
}

std::optional<double> StepReporter::GemmShare(double flops, double seconds) const {
  if (options_.gemm_rate <= 0 || seconds <= 0) return std::nullopt;
  return flops / seconds / options_.gemm_rate;
}

absl::Status StepReporter::Step(const StepResult& result, int64_t total_steps) {
  rows_ += result.rows;
  tokens_ += result.tokens;
  flops_ += result.flops;
  step_end_ = bar_.elapsed();
  const double seconds = absl::ToDoubleSeconds(step_end_ - validation_time_);
  const MemoryUsage memory = ReadMemoryUsage();
  bar_.set_total(total_steps);
  bar_.Update(result.step + 1,
              LiveText({.items_per_second = static_cast<double>(rows_) / seconds,
                        .tokens_per_second = static_cast<double>(tokens_) / seconds,
                        .gemm_share = GemmShare(flops_, seconds),
                        .memory = memory,
                        .loss = result.loss}));
  RETURN_IF_ERROR(
      log_->Append({{"step", static_cast<double>(result.step + 1)},
                    {"total_steps", static_cast<double>(total_steps)},
                    {"loss", result.loss},
                    {"gradient_norm", result.gradient_norm},
                    {"learning_rate", result.learning_rate},
                    {"head_learning_rate", result.head_learning_rate},
                    {"rows", static_cast<double>(result.rows)},
                    {"tokens", static_cast<double>(result.tokens)},
                    {"seconds", seconds + absl::ToDoubleSeconds(options_.time_before)}}));
  RETURN_IF_ERROR(AddEvents(result, memory));
  return WarnIfItStandsOut(result);
}

absl::Status StepReporter::AddEvents(const StepResult& result, const MemoryUsage& memory) {
  std::vector<EventFile::Scalar> scalars = {
      {"train/loss", result.loss},
      {"train/grad_norm", result.gradient_norm},
      {"train/learning_rate", result.learning_rate},
      {"train/head_learning_rate", result.head_learning_rate}};
  // Of this step alone, so that a curve shows when it became slower.
  const double seconds = absl::ToDoubleSeconds(result.time);
  if (seconds > 0) {
    scalars.push_back({"train/tokens_per_second", static_cast<double>(result.tokens) / seconds});
    scalars.push_back({"train/items_per_second", static_cast<double>(result.rows) / seconds});
  }
  const std::optional<double> share = GemmShare(result.flops, seconds);
  if (share.has_value()) scalars.push_back({"train/gemm_share", *share});
  if (memory.resident_bytes.has_value()) {
    scalars.push_back({"train/resident_bytes", static_cast<double>(*memory.resident_bytes)});
  }
  return events_.Add(result.step + 1, scalars);
}

absl::Status StepReporter::WarnIfItStandsOut(const StepResult& result) {
  std::vector<WatchedRow> rows;
  for (const int64_t row : result.row_numbers) {
    rows.push_back({data_->file_rows[row], data_->item_ids[row]});
  }
  const std::optional<std::string> line =
      watch_.Check(result.step + 1, result.loss, result.gradient_norm, rows);
  if (!line.has_value()) return absl::OkStatus();
  bar_.Print(absl::StrCat("warning: ", *line));
  return log_->AppendWarning(result.step + 1, *line);
}

absl::Status StepReporter::Validated(int64_t step, const Metrics& metrics) {
  validation_time_ += bar_.elapsed() - step_end_;
  bar_.Print(absl::StrCat("after step ", step, " on ", metrics.items,
                          " validation items: ", MetricsLine(metrics)));
  RETURN_IF_ERROR(log_->AppendValidation(step, metrics));
  std::vector<EventFile::Scalar> scalars = {
      {"validation/mae", metrics.mae},
      {"validation/median_absolute_error", metrics.median_absolute_error},
      {"validation/rmsle", metrics.rmsle},
      {"validation/within_20_percent", metrics.within_20_percent}};
  if (metrics.coverage_80.has_value()) {
    scalars.push_back({"validation/coverage_80", *metrics.coverage_80});
  }
  return events_.Add(step, scalars);
}

}  // namespace pricer
