#include "trainer/metrics.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "catalog/median.h"

namespace pricer {
namespace {

// Koenker and Bassett's check function of one quantile.
double PinballLoss(double level, double quantile, double truth) {
  const double error = truth - quantile;
  return std::max(level * error, (level - 1.0) * error);
}

double MeanPinball(const ScoredPrice& score) {
  double sum = 0;
  for (size_t i = 0; i < kQuantileLevels.size(); ++i) {
    const double quantile = score.quantiles.has_value() ? (*score.quantiles)[i] : score.price;
    sum += PinballLoss(kQuantileLevels[i], quantile, score.truth);
  }
  return sum / kQuantileLevels.size();
}

}  // namespace

ScoredPrice ScoreDistribution(const PriceDistribution& distribution, double conformal_offset,
                              double truth, const Estimator& estimator) {
  ScoredPrice score;
  score.price = distribution.Estimate(estimator);
  score.truth = truth;
  score.interval = distribution.CentralInterval(kDefaultIntervalCoverage, conformal_offset);
  score.quantiles.emplace();
  for (size_t i = 0; i < kQuantileLevels.size(); ++i) {
    (*score.quantiles)[i] = distribution.Quantile(kQuantileLevels[i]);
  }
  score.crps = distribution.Crps(truth);
  return score;
}

ScoredPrice ScorePoint(double price, double truth) {
  ScoredPrice score;
  score.price = price;
  score.truth = truth;
  score.crps = std::abs(price - truth);
  return score;
}

Metrics Measure(absl::Span<const ScoredPrice> scores) {
  Metrics metrics;
  metrics.items = static_cast<int64_t>(scores.size());
  const double count = static_cast<double>(scores.size());
  std::vector<double> errors;
  errors.reserve(scores.size());
  double squared_log = 0;
  int64_t within = 0;
  int64_t covered = 0;
  int64_t intervals = 0;
  for (const ScoredPrice& score : scores) {
    const double error = std::abs(score.price - score.truth);
    errors.push_back(error);
    metrics.mae += error / count;
    metrics.mape += error / score.truth / count;
    metrics.crps += score.crps / count;
    metrics.pinball += MeanPinball(score) / count;
    const double log_error = std::log1p(score.price) - std::log1p(score.truth);
    squared_log += log_error * log_error;
    if (error <= 0.2 * score.truth) ++within;
    if (!score.interval.has_value()) continue;
    ++intervals;
    if (score.interval->low <= score.truth && score.truth <= score.interval->high) ++covered;
  }
  metrics.median_absolute_error = Median(std::move(errors));
  metrics.rmsle = std::sqrt(squared_log / count);
  metrics.within_20_percent = static_cast<double>(within) / count;
  if (intervals > 0) {
    metrics.coverage_80 = static_cast<double>(covered) / static_cast<double>(intervals);
  }
  return metrics;
}

Metrics MeasureConstant(double price, absl::Span<const double> truths) {
  std::vector<ScoredPrice> scores;
  scores.reserve(truths.size());
  for (double truth : truths) scores.push_back(ScorePoint(price, truth));
  return Measure(scores);
}

}  // namespace pricer
