#include "server/price_answer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace pricer {
namespace {

using ::testing::DoubleNear;

TEST(PriceAnswerTest, ReadsWhatWasAskedForInTheOrderOfTheOptions) {
  const PriceDistribution distribution(1, 10000, {0.25, 0.25, 0.25, 0.25});
  PriceOptions options;
  options.estimator = *Estimator::Parse("quantile:0.75");
  options.quantiles = {0.5, 0.25};
  options.interval_coverages = {0.5, 0.9};
  const PriceAnswer answer = AnswerFrom(distribution, Manifest(), options);
  EXPECT_THAT(answer.price, DoubleNear(1000, 1e-6));
  ASSERT_EQ(answer.quantiles.size(), 2u);
  EXPECT_EQ(answer.quantiles[0].level, 0.5);
  EXPECT_THAT(answer.quantiles[0].price, DoubleNear(100, 1e-6));
  EXPECT_THAT(answer.quantiles[1].price, DoubleNear(10, 1e-6));
  ASSERT_EQ(answer.intervals.size(), 2u);
  EXPECT_THAT(answer.intervals[0].low, DoubleNear(10, 1e-6));
  EXPECT_THAT(answer.intervals[0].high, DoubleNear(1000, 1e-6));
  EXPECT_EQ(answer.intervals[1].coverage, 0.9);
  EXPECT_EQ(answer.confidence, distribution.Confidence(answer.price));
}

TEST(PriceAnswerTest, TheDefaultIsTheMedianWithOneIntervalOf80Percent) {
  const PriceDistribution distribution(1, 10000, {1});
  const PriceAnswer answer = AnswerFrom(distribution, Manifest(), PriceOptions());
  EXPECT_THAT(answer.price, DoubleNear(100, 1e-6));
  ASSERT_EQ(answer.intervals.size(), 1u);
  EXPECT_EQ(answer.intervals[0].coverage, 0.8);
}

TEST(PriceAnswerTest, WidensOnlyTheIntervalThatTheManifestHasAnOffsetFor) {
  const PriceDistribution distribution(1, 10000, {1});
  Manifest manifest;
  manifest.conformal = {{"0.8", std::log(2.0)}};
  PriceOptions options;
  options.interval_coverages = {0.8, 0.5};
  const PriceAnswer plain = AnswerFrom(distribution, Manifest(), options);
  const PriceAnswer widened = AnswerFrom(distribution, manifest, options);
  EXPECT_THAT(widened.intervals[0].low, DoubleNear(plain.intervals[0].low / 2, 1e-9));
  EXPECT_THAT(widened.intervals[0].high, DoubleNear(plain.intervals[0].high * 2, 1e-6));
  EXPECT_EQ(widened.intervals[1].low, plain.intervals[1].low);
  EXPECT_EQ(widened.price, plain.price);
}

}  // namespace
}  // namespace pricer
