#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "trainer/outlier_detector.h"

namespace pricer {

// A row of the training data, as a person finds it again.
struct WatchedRow {
  int64_t row = 0;
  absl::string_view id;  // the item's, or empty
};

// Notices steps whose loss or gradient norm is far above that of the steps before: rows with a
// wrong price or a text that is none are often behind it. A fall is never reported. One thread.
class StepWatch {
 public:
  struct Options {
    // Of both series; what stands more than `max_deviations` above the mean is reported.
    OutlierDetector::Options detector = {};
    // Of a step that are named; the others are counted.
    int64_t max_rows = 16;
  };

  // What the next step is held against, as OutlierDetector::window.
  struct State {
    std::vector<double> losses;
    std::vector<double> gradient_norms;
  };

  // REQUIRES: as OutlierDetector.
  explicit StepWatch(const Options& options);

  // Takes the next step in. Where it stands out, a line without an end of line:
  //   step 812: loss 9.31 is 7.2 standard deviations above the mean of the last 128 steps; rows:
  //   1032 (id 'B00X'), 77 and 12 more
  std::optional<std::string> Check(int64_t step, double loss, double gradient_norm,
                                   absl::Span<const WatchedRow> rows);

  State state() const { return {losses_.window(), gradient_norms_.window()}; }
  // For a run that goes on. InvalidArgument names what is wrong; nothing has changed then.
  absl::Status Restore(const State& state);

 private:
  const Options options_;
  OutlierDetector losses_;
  OutlierDetector gradient_norms_;
};

}  // namespace pricer
