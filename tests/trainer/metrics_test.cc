#include "trainer/metrics.h"

#include <gmock/gmock.h>

#include <cmath>
#include <vector>

namespace pricer {
namespace {

TEST(MetricsTest, EqualsHandComputedNumbersForSinglePrices) {
  // Errors 2, 10, 0, 30 of truths 10, 40, 25, 20.
  const std::vector<ScoredPrice> scores = {ScorePoint(12, 10), ScorePoint(30, 40),
                                           ScorePoint(25, 25), ScorePoint(50, 20)};
  const Metrics metrics = Measure(scores);
  EXPECT_EQ(metrics.items, 4);
  EXPECT_DOUBLE_EQ(metrics.mae, 10.5);
  EXPECT_DOUBLE_EQ(metrics.median_absolute_error, 6.0);
  EXPECT_DOUBLE_EQ(metrics.mape, (0.2 + 0.25 + 0.0 + 1.5) / 4);
  EXPECT_DOUBLE_EQ(metrics.within_20_percent, 0.5);
  const double a = std::log(13.0 / 11.0);
  const double b = std::log(31.0 / 41.0);
  const double c = std::log(51.0 / 21.0);
  EXPECT_NEAR(metrics.rmsle, std::sqrt((a * a + b * b + c * c) / 4), 1e-12);
  EXPECT_DOUBLE_EQ(metrics.crps, 10.5);
  EXPECT_FALSE(metrics.coverage_80.has_value());
  // The levels' mean is 0.5 and symmetric, so a price too high or too low by e costs e / 2.
  EXPECT_NEAR(metrics.pinball, 10.5 / 2, 1e-12);
}

TEST(MetricsTest, PinballWeighsAQuantileThatIsTooLowByItsLevel) {
  ScoredPrice score;
  score.price = 10;
  score.truth = 20;
  score.quantiles = {4, 6, 8, 10, 12, 24, 30};
  // 0.05 * 16 + 0.1 * 14 + 0.25 * 12 + 0.5 * 10 + 0.75 * 8 + 0.1 * 4 + 0.05 * 10.
  EXPECT_NEAR(Measure({score}).pinball, (0.8 + 1.4 + 3.0 + 5.0 + 6.0 + 0.4 + 0.5) / 7, 1e-12);
}

TEST(MetricsTest, CoverageCountsTruthsInsideTheInterval) {
  std::vector<ScoredPrice> scores(4);
  const double truths[] = {9.9, 10.0, 20.0, 20.1};
  for (int i = 0; i < 4; ++i) {
    scores[i].price = 15;
    scores[i].truth = truths[i];
    scores[i].interval = {.coverage = 0.8, .low = 10, .high = 20};
  }
  EXPECT_EQ(Measure(scores).coverage_80, 0.5);
}

TEST(MetricsTest, AnErrorOfExactlyAFifthCountsAsWithin) {
  EXPECT_EQ(Measure({ScorePoint(80, 100)}).within_20_percent, 1.0);
  EXPECT_EQ(Measure({ScorePoint(79.9, 100)}).within_20_percent, 0.0);
  EXPECT_EQ(Measure({ScorePoint(120.1, 100)}).within_20_percent, 0.0);
}

TEST(MetricsTest, AConstantIsMeasuredAsASinglePriceForEveryItem) {
  const Metrics metrics = MeasureConstant(10.0, {5.0, 10.0, 20.0});
  EXPECT_EQ(metrics.items, 3);
  EXPECT_DOUBLE_EQ(metrics.mae, 5.0);
  EXPECT_DOUBLE_EQ(metrics.crps, 5.0);
  EXPECT_DOUBLE_EQ(metrics.median_absolute_error, 5.0);
  EXPECT_FALSE(metrics.coverage_80.has_value());
}

TEST(MetricsTest, ADistributionIsScoredByItsMedianQuantilesAndInterval) {
  // One bin: uniform in ln(price) from 1 to 100, so quantile q is 100^q.
  const PriceDistribution distribution(1.0, 100.0, {1.0});
  const ScoredPrice score = ScoreDistribution(distribution, /*conformal_offset=*/0.0, 30.0);
  EXPECT_NEAR(score.price, 10.0, 1e-9);
  EXPECT_NEAR((*score.quantiles)[0], std::pow(100.0, 0.05), 1e-9);
  EXPECT_NEAR((*score.quantiles)[6], std::pow(100.0, 0.95), 1e-9);
  EXPECT_NEAR(score.interval->low, std::pow(100.0, 0.1), 1e-9);
  EXPECT_NEAR(score.interval->high, std::pow(100.0, 0.9), 1e-9);
  EXPECT_DOUBLE_EQ(score.crps, distribution.Crps(30.0));
  const ScoredPrice wider = ScoreDistribution(distribution, std::log(1.1), 30.0);
  EXPECT_NEAR(wider.interval->low, score.interval->low / 1.1, 1e-9);
  EXPECT_NEAR(wider.interval->high, score.interval->high * 1.1, 1e-9);
}

}  // namespace
}  // namespace pricer
