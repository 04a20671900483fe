#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"

namespace pricer {

// How far each value of a series stands out from those before it: its z-score, the distance from
// the mean of a window in (population) standard deviations of the window. One thread.
//
// - The deviation counts as at least 0.1 % of the mean's magnitude, and 1e-6: a series that was
//   constant has no infinite scores, and rounding in it is none.
// - An outlier enters the window, but only as the value at `max_deviations` on its side. Whole, one
//   spike would widen the window so far that the next is missed; left out, a series that has moved
//   for good would be all outliers from then on.
//
// The window is all there is, and sums are taken anew in its order: a detector that is restored
// from it gives the same bits.
class OutlierDetector {
 public:
  struct Options {
    int64_t window = 128;       // values
    int64_t min_values = 16;    // in the window before anything is scored
    double max_deviations = 6;  // as which a value enters at most
  };

  // REQUIRES: 1 <= min_values <= window, max_deviations > 0.
  explicit OutlierDetector(const Options& options);

  // The score of `value` against the window, into which it then goes in place of the oldest. None
  // while the window is short. What is not finite has no score and does not enter.
  std::optional<double> Score(double value);

  // What the next value is scored against, oldest first.
  const std::vector<double>& window() const { return window_; }
  // InvalidArgument where this is no window of such a detector; nothing has changed then.
  absl::Status Restore(absl::Span<const double> window);

 private:
  Options options_;
  std::vector<double> window_;
};

}  // namespace pricer
