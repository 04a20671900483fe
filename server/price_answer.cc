#include "server/price_answer.h"

#include <cmath>

#include "absl/strings/numbers.h"

namespace pricer {
namespace {

constexpr double kSameCoverage = 1e-9;

double ConformalOffset(const Manifest& manifest, double coverage) {
  for (const auto& [text, offset] : manifest.conformal) {
    double stored = 0;
    if (absl::SimpleAtod(text, &stored) && std::abs(stored - coverage) < kSameCoverage) {
      return offset;
    }
  }
  return 0;
}

}  // namespace

PriceAnswer AnswerFrom(const PriceDistribution& distribution, const Manifest& manifest,
                       const PriceOptions& options) {
  PriceAnswer answer;
  answer.price = distribution.Estimate(options.estimator);
  answer.confidence = distribution.Confidence(answer.price);
  for (const double coverage : options.interval_coverages) {
    answer.intervals.push_back(
        distribution.CentralInterval(coverage, ConformalOffset(manifest, coverage)));
  }
  for (const double level : options.quantiles) {
    answer.quantiles.push_back({level, distribution.Quantile(level)});
  }
  return answer;
}

}  // namespace pricer
