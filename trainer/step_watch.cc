#include "trainer/step_watch.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "model/json_fields.h"

namespace pricer {
namespace {

// "loss 9.31 is 7.2".
std::string Excess(absl::string_view name, double value, double deviations) {
  return absl::StrFormat("%s %.4g is %.1f", name, value, deviations);
}

std::string RowText(const WatchedRow& row) {
  if (row.id.empty()) return absl::StrCat(row.row);
  return absl::StrCat(row.row, " (id ", Quoted(row.id), ")");
}

std::string RowsText(absl::Span<const WatchedRow> rows, int64_t max_rows) {
  const absl::Span<const WatchedRow> named =
      rows.first(std::min(rows.size(), static_cast<size_t>(max_rows)));
  std::string text = absl::StrJoin(named, ", ", [](std::string* out, const WatchedRow& row) {
    absl::StrAppend(out, RowText(row));
  });
  if (named.size() < rows.size()) {
    absl::StrAppend(&text, " and ", rows.size() - named.size(), " more");
  }
  return text;
}

absl::Status In(absl::string_view series, const absl::Status& status) {
  if (status.ok()) return status;
  return absl::Status(status.code(), absl::StrCat(series, ": ", status.message()));
}

}  // namespace

StepWatch::StepWatch(const Options& options)
    : options_(options), losses_(options.detector), gradient_norms_(options.detector) {}

std::optional<std::string> StepWatch::Check(int64_t step, double loss, double gradient_norm,
                                            absl::Span<const WatchedRow> rows) {
  const size_t steps = losses_.window().size();
  const double threshold = options_.detector.max_deviations;
  const double loss_score = losses_.Score(loss).value_or(0);
  const double norm_score = gradient_norms_.Score(gradient_norm).value_or(0);
  std::vector<std::string> excesses;
  if (loss_score > threshold) excesses.push_back(Excess("loss", loss, loss_score));
  if (norm_score > threshold) {
    excesses.push_back(Excess("gradient norm", gradient_norm, norm_score));
  }
  if (excesses.empty()) return std::nullopt;
  std::string line =
      absl::StrCat("step ", step, ": ", absl::StrJoin(excesses, " and "),
                   " standard deviations above the mean of the last ", steps, " steps");
  if (!rows.empty()) absl::StrAppend(&line, "; rows: ", RowsText(rows, options_.max_rows));
  return line;
}

absl::Status StepWatch::Restore(const State& state) {
  OutlierDetector losses(options_.detector);
  OutlierDetector gradient_norms(options_.detector);
  RETURN_IF_ERROR(In("losses", losses.Restore(state.losses)));
  RETURN_IF_ERROR(In("gradient norms", gradient_norms.Restore(state.gradient_norms)));
  losses_ = std::move(losses);
  gradient_norms_ = std::move(gradient_norms);
  return absl::OkStatus();
}

}  // namespace pricer
