#include "server/price_answer.h"

namespace pricer {
PriceAnswer AnswerFrom(const PriceDistribution& distribution, const Manifest& manifest,
                       const PriceOptions& options) {
  PriceAnswer answer;
  answer.price = distribution.Estimate(options.estimator);
  answer.confidence = distribution.Confidence(answer.price);
  for (const double coverage : options.interval_coverages) {
    answer.intervals.push_back(
        distribution.CentralInterval(coverage, manifest.ConformalOffset(coverage)));
  }
  for (const double level : options.quantiles) {
    answer.quantiles.push_back({level, distribution.Quantile(level)});
  }
  return answer;
}

}  // namespace pricer
