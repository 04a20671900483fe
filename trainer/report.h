#pragma once

#include <string>

#include "absl/strings/string_view.h"
#include "trainer/metrics.h"

namespace pricer {

// The constant that a model has to beat: one price, the median of other items, for every item.
struct Baseline {
  // Whose median it is: "training items" or "evaluated items".
  std::string median_of;
  double median = 0;
  Metrics metrics;
};

// {"items", "mae", ..., "unparsable", "baseline": {the same}, "baseline_median",
// "baseline_median_of"}; shares are fractions, a coverage without intervals is null. Two-space
// indent, newline at the end.
std::string EvaluationJson(const Metrics& metrics, const Baseline& baseline);

// The same as a table for people, a column for each; `name` heads the first.
std::string EvaluationTable(absl::string_view name, const Metrics& metrics,
                            const Baseline& baseline);

// One line of a predictions file: {"id","price","truth","low","high","quantiles":{...}}; what is
// absent is null.
std::string PredictionLine(absl::string_view id, const ScoredPrice& score);

// "MAE 12.34  median error 5.678  RMSLE 0.512  within 20 %: 31.2 %  in the 80 % interval: 78.9 %";
// without intervals it ends before the last part.
std::string MetricsLine(const Metrics& metrics);

}  // namespace pricer
