#include "trainer/outlier_detector.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace pricer {
namespace {

constexpr double kMinDeviation = 1e-6;
constexpr double kMinRelativeDeviation = 1e-3;

struct Moments {
  double mean = 0;
  double deviation = 0;  // not below the floor
};

Moments MomentsOf(absl::Span<const double> values) {
  const auto count = static_cast<double>(values.size());
  double sum = 0;
  for (const double value : values) sum += value;
  Moments moments;
  moments.mean = sum / count;
  double squares = 0;
  for (const double value : values) squares += (value - moments.mean) * (value - moments.mean);
  moments.deviation = std::max(
      {std::sqrt(squares / count), kMinDeviation, kMinRelativeDeviation * std::abs(moments.mean)});
  return moments;
}

}  // namespace

OutlierDetector::OutlierDetector(const Options& options) : options_(options) {
  PRICER_CHECK(options.min_values >= 1 && options.min_values <= options.window);
  PRICER_CHECK(options.max_deviations > 0);
}

std::optional<double> OutlierDetector::Score(double value) {
  if (!std::isfinite(value)) return std::nullopt;
  std::optional<double> score;
  double entering = value;
  if (static_cast<int64_t>(window_.size()) >= options_.min_values) {
    const Moments moments = MomentsOf(window_);
    const double reach = options_.max_deviations * moments.deviation;
    score = (value - moments.mean) / moments.deviation;
    entering = std::clamp(value, moments.mean - reach, moments.mean + reach);
  }
  if (static_cast<int64_t>(window_.size()) == options_.window) window_.erase(window_.begin());
  window_.push_back(entering);
  return score;
}

absl::Status OutlierDetector::Restore(absl::Span<const double> window) {
  if (static_cast<int64_t>(window.size()) > options_.window) {
    return absl::InvalidArgumentError(
        absl::StrCat("window: expected at most ", options_.window, " values, got ", window.size()));
  }
  for (size_t i = 0; i < window.size(); ++i) {
    if (std::isfinite(window[i])) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("window: value ", i, ": expected a finite number, got ", window[i]));
  }
  window_.assign(window.begin(), window.end());
  return absl::OkStatus();
}

}  // namespace pricer
