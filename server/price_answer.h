#pragma once

#include <vector>

#include "model/manifest.h"
#include "model/price_distribution.h"

namespace pricer {

// What a caller wants to know of a distribution.
struct PriceOptions {
  Estimator estimator;
  // Levels in (0, 1).
  std::vector<double> quantiles;
  // Coverages in (0, 1).
  std::vector<double> interval_coverages = {kDefaultIntervalCoverage};
  bool want_distribution = false;
};

struct PriceQuantile {
  double level = 0;
  double price = 0;
};

struct PriceAnswer {
  double price = 0;
  // In the order of the options.
  std::vector<PriceInterval> intervals;
  std::vector<PriceQuantile> quantiles;
  // Probability that the true price lies within 20 % of `price`.
  double confidence = 0;
};

// Reads the answer off a distribution. Intervals are widened by the manifest's conformal offset of
// their coverage, where it has one.
PriceAnswer AnswerFrom(const PriceDistribution& distribution, const Manifest& manifest,
                       const PriceOptions& options);

}  // namespace pricer
