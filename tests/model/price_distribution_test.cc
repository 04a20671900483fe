#include "model/price_distribution.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "tests/testing/status_matchers.h"

namespace pricer {
namespace {

using ::pricer::testing::IsOk;
using ::pricer::testing::StatusIs;
using ::testing::AllOf;
using ::testing::DoubleNear;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

double Uniform(std::mt19937_64& random, double low, double high) {
  return low + (high - low) * (static_cast<double>(random() >> 11) * 0x1p-53);
}

// Between 1 and 130 bins over ranges from narrow to wide; a third of the bins have no mass.
PriceDistribution RandomDistribution(uint64_t seed) {
  std::mt19937_64 random(seed);
  const int bins = 1 + static_cast<int>(random() % 130);
  const double low = std::exp(Uniform(random, -5, 8));
  const double high = low * std::exp(std::exp(Uniform(random, -4, 2.5)));
  std::vector<double> probabilities(bins);
  for (double& probability : probabilities) {
    probability = random() % 3 == 0 ? 0.0 : std::exp(Uniform(random, -8, 2));
  }
  probabilities[random() % bins] += 0.5;
  return PriceDistribution(low, high, std::move(probabilities));
}

constexpr uint64_t kSeeds = 60;

// Integral of f over [low, high] by Gauss-Legendre with three points on each of `pieces` pieces.
double Integrate(const std::function<double(double)>& f, double low, double high, int pieces) {
  const double node = std::sqrt(0.6);
  double sum = 0;
  const double half = (high - low) / pieces / 2;
  for (int i = 0; i < pieces; ++i) {
    const double middle = low + (2 * i + 1) * half;
    sum += 5 * f(middle - node * half) + 8 * f(middle) + 5 * f(middle + node * half);
  }
  return sum * half / 9;
}

// P(price <= x) out of the definition alone.
double PlainCdf(const PriceDistribution& distribution, double price) {
  const double low = std::log(distribution.min_price());
  const double width = (std::log(distribution.max_price()) - low) / distribution.bin_count();
  double mass = 0;
  for (int i = 0; i < distribution.bin_count(); ++i) {
    const double share = (std::log(price) - low - i * width) / width;
    mass += distribution.probabilities()[i] * std::clamp(share, 0.0, 1.0);
  }
  return mass;
}

double PlainCrps(const PriceDistribution& distribution, double truth, int pieces) {
  std::vector<double> cuts = distribution.Edges();
  cuts.push_back(truth);
  std::sort(cuts.begin(), cuts.end());
  double score = 0;
  for (size_t i = 0; i + 1 < cuts.size(); ++i) {
    const auto square = [&](double x) {
      const double difference = PlainCdf(distribution, x) - (x >= truth ? 1.0 : 0.0);
      return difference * difference;
    };
    score += Integrate(square, cuts[i], cuts[i + 1], pieces);
  }
  return score;
}

TEST(PriceDistributionTest, ProbabilitiesAreNormalised) {
  const PriceDistribution distribution(1.0, 16.0, {1, 0, 2, 5});
  EXPECT_THAT(distribution.probabilities(), ElementsAre(0.125, 0, 0.25, 0.625));
  EXPECT_THAT(distribution.Edges(), ElementsAre(1.0, DoubleNear(2, 1e-12), DoubleNear(4, 1e-12),
                                                DoubleNear(8, 1e-12), 16.0));
}

TEST(PriceDistributionTest, CdfIsLinearInLogPriceInsideABin) {
  const PriceDistribution distribution(1.0, 16.0, {1, 0, 2, 5});
  EXPECT_EQ(distribution.Cdf(-3.0), 0.0);
  EXPECT_EQ(distribution.Cdf(0.0), 0.0);
  EXPECT_EQ(distribution.Cdf(1.0), 0.0);
  EXPECT_NEAR(distribution.Cdf(std::sqrt(2.0)), 0.0625, 1e-12);
  EXPECT_NEAR(distribution.Cdf(3.0), 0.125, 1e-12);
  EXPECT_NEAR(distribution.Cdf(4.0 * std::exp2(0.25)), 0.1875, 1e-12);
  EXPECT_EQ(distribution.Cdf(16.0), 1.0);
  EXPECT_EQ(distribution.Cdf(1e9), 1.0);
}

TEST(PriceDistributionTest, CdfIsTheSumOfTheMassBelow) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    const PriceDistribution distribution = RandomDistribution(seed);
    std::mt19937_64 random(seed);
    for (int i = 0; i < 50; ++i) {
      const double price = Uniform(random, distribution.min_price(), distribution.max_price());
      EXPECT_NEAR(distribution.Cdf(price), PlainCdf(distribution, price), 1e-11) << seed;
    }
  }
}

TEST(PriceDistributionTest, QuantileInvertsTheCdf) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    const PriceDistribution distribution = RandomDistribution(seed);
    double last = distribution.min_price();
    for (int i = 0; i <= 1000; ++i) {
      const double level = i / 1000.0;
      const double price = distribution.Quantile(level);
      EXPECT_NEAR(distribution.Cdf(price), level, 1e-10) << seed;
      EXPECT_GE(price, last) << seed;
      EXPECT_LE(price, distribution.max_price()) << seed;
      last = price;
    }
  }
}

TEST(PriceDistributionTest, QuantileIsTheSmallestPriceThatReachesItsLevel) {
  // Mass in bins [1, 2] and [8, 16] alone.
  const PriceDistribution distribution(1.0, 32.0, {1, 0, 0, 1, 0});
  EXPECT_EQ(distribution.Quantile(0.0), 1.0);
  EXPECT_NEAR(distribution.Quantile(0.25), std::sqrt(2.0), 1e-12);
  EXPECT_NEAR(distribution.Quantile(0.5), 2.0, 1e-12);
  EXPECT_NEAR(distribution.Quantile(std::nextafter(0.5, 1.0)), 8.0, 1e-12);
  EXPECT_NEAR(distribution.Quantile(1.0), 16.0, 1e-12);
}

TEST(PriceDistributionTest, LevelsOutsideTheUnitIntervalCountAsItsEnds) {
  const PriceDistribution distribution(1.0, 32.0, {0, 0, 0, 1, 0});
  EXPECT_EQ(distribution.Quantile(-0.5), 1.0);
  EXPECT_EQ(distribution.Quantile(0.0), 1.0);
  EXPECT_NEAR(distribution.Quantile(1e-300), 8.0, 1e-12);
  EXPECT_NEAR(distribution.Quantile(1.0), 16.0, 1e-12);
  EXPECT_EQ(distribution.Quantile(7.0), distribution.Quantile(1.0));
}

TEST(PriceDistributionTest, LastQuantileIsTheEndOfTheLastBinWithMass) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    const PriceDistribution distribution = RandomDistribution(seed);
    int last = distribution.bin_count() - 1;
    while (distribution.probabilities()[last] == 0) --last;
    EXPECT_NEAR(distribution.Quantile(1.0) / distribution.Edges()[last + 1], 1.0, 1e-12) << seed;
  }
}

TEST(PriceDistributionTest, MeanIsTheIntegralOfThePrice) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    const PriceDistribution distribution = RandomDistribution(seed);
    const double low = std::log(distribution.min_price());
    const double width = (std::log(distribution.max_price()) - low) / distribution.bin_count();
    double mean = 0;
    for (int i = 0; i < distribution.bin_count(); ++i) {
      const auto price = [](double u) { return std::exp(u); };
      mean += distribution.probabilities()[i] / width *
              Integrate(price, low + i * width, low + (i + 1) * width, 100);
    }
    EXPECT_NEAR(distribution.Mean() / mean, 1.0, 1e-9) << seed;
  }
}

TEST(PriceDistributionTest, MeanOfAVeryNarrowRangeKeepsItsDigits) {
  const PriceDistribution distribution(100.0, 100.0 * (1 + 1e-13), {1, 1, 1});
  EXPECT_GE(distribution.Mean(), distribution.min_price());
  EXPECT_LE(distribution.Mean(), distribution.max_price());
  const PriceDistribution neighbours(1.0, std::nextafter(1.0, 2.0), {1, 2, 3});
  for (const double price : {neighbours.Mean(), neighbours.Quantile(0.5), neighbours.Mode()}) {
    EXPECT_TRUE(price == 1.0 || price == neighbours.max_price()) << price;
  }
}

TEST(PriceDistributionTest, SamplesByTheInverseCdfHaveTheSameMoments) {
  constexpr int kSamples = 200000;
  for (uint64_t seed = 0; seed < 10; ++seed) {
    const PriceDistribution distribution = RandomDistribution(seed);
    const double price = distribution.Estimate({});
    double sum = 0, log_sum = 0;
    int close = 0;
    for (int i = 0; i < kSamples; ++i) {
      const double sample = distribution.Quantile((i + 0.5) / kSamples);
      sum += sample;
      log_sum += std::log(sample);
      close += sample >= 0.8 * price && sample <= 1.2 * price ? 1 : 0;
    }
    EXPECT_NEAR(distribution.Mean() / (sum / kSamples), 1.0, 1e-3) << seed;
    EXPECT_NEAR(std::log(distribution.Geomean()), log_sum / kSamples, 1e-4) << seed;
    EXPECT_NEAR(distribution.Confidence(price), static_cast<double>(close) / kSamples, 1e-4)
        << seed;
  }
}

TEST(PriceDistributionTest, ModeIsTheGeometricMiddleOfTheLikeliestBin) {
  EXPECT_NEAR(PriceDistribution(1.0, 16.0, {1, 3, 3, 2}).Mode(), std::sqrt(8.0), 1e-12);
  EXPECT_NEAR(PriceDistribution(1.0, 16.0, {0, 0, 0, 2}).Mode(), std::sqrt(128.0), 1e-12);
}

TEST(PriceDistributionTest, EveryEstimateLiesInTheRange) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    const PriceDistribution distribution = RandomDistribution(seed);
    for (const char* name : {"median", "mean", "geomean", "mode", "quantile:0.001"}) {
      ASSERT_OK_AND_ASSIGN(const Estimator estimator, Estimator::Parse(name));
      EXPECT_GE(distribution.Estimate(estimator), distribution.min_price()) << name;
      EXPECT_LE(distribution.Estimate(estimator), distribution.max_price()) << name;
    }
    EXPECT_GE(distribution.Mean() * (1 + 1e-12), distribution.Geomean()) << seed;
  }
}

TEST(PriceDistributionTest, EstimateChoosesByKind) {
  const PriceDistribution distribution(1.0, 64.0, {5, 1, 2, 2, 0, 1});
  const auto estimate = [&](const char* name) {
    return distribution.Estimate(*Estimator::Parse(name));
  };
  EXPECT_EQ(estimate("median"), distribution.Quantile(0.5));
  EXPECT_EQ(estimate("mean"), distribution.Mean());
  EXPECT_EQ(estimate("geomean"), distribution.Geomean());
  EXPECT_EQ(estimate("mode"), distribution.Mode());
  EXPECT_EQ(estimate("quantile:0.9"), distribution.Quantile(0.9));
}

TEST(PriceDistributionTest, CentralIntervalHoldsItsCoverage) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    const PriceDistribution distribution = RandomDistribution(seed);
    const PriceInterval interval = distribution.CentralInterval(0.8);
    EXPECT_EQ(interval.coverage, 0.8);
    EXPECT_NEAR(distribution.Cdf(interval.high) - distribution.Cdf(interval.low), 0.8, 1e-9);
    EXPECT_NEAR(distribution.Cdf(interval.low), 0.1, 1e-9) << seed;
  }
}

TEST(PriceDistributionTest, ConformalOffsetMovesBothEndsInLogPrice) {
  const PriceDistribution distribution(1.0, 1024.0, {0, 0, 0, 1, 1, 1, 1, 0, 0, 0});
  const PriceInterval plain = distribution.CentralInterval(0.5);
  const PriceInterval wide = distribution.CentralInterval(0.5, 0.3);
  EXPECT_NEAR(std::log(plain.low / wide.low), 0.3, 1e-12);
  EXPECT_NEAR(std::log(wide.high / plain.high), 0.3, 1e-12);
  const PriceInterval narrow = distribution.CentralInterval(0.5, -0.1);
  EXPECT_NEAR(std::log(plain.low / narrow.low), -0.1, 1e-12);
  EXPECT_NEAR(std::log(narrow.high / plain.high), -0.1, 1e-12);
}

TEST(PriceDistributionTest, ConformalOffsetStaysInTheRangeAndKeepsTheEndsInOrder) {
  const PriceDistribution distribution(1.0, 1024.0, {0, 0, 0, 1, 1, 1, 1, 0, 0, 0});
  const PriceInterval whole = distribution.CentralInterval(0.5, 100.0);
  EXPECT_EQ(whole.low, 1.0);
  EXPECT_EQ(whole.high, 1024.0);
  const PriceInterval nothing = distribution.CentralInterval(0.5, -100.0);
  EXPECT_EQ(nothing.low, nothing.high);
  EXPECT_NEAR(nothing.low, 32.0, 1e-9);
}

TEST(PriceDistributionTest, ConfidenceIsTheMassWithinTheShare) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    const PriceDistribution distribution = RandomDistribution(seed);
    const double price = distribution.Quantile(0.4);
    EXPECT_NEAR(distribution.Confidence(price, 0.3),
                PlainCdf(distribution, 1.3 * price) - PlainCdf(distribution, 0.7 * price), 1e-10);
    EXPECT_NEAR(distribution.Confidence(price),
                PlainCdf(distribution, 1.2 * price) - PlainCdf(distribution, 0.8 * price), 1e-10);
  }
  EXPECT_EQ(PriceDistribution(1.0, 2.0, {1}).Confidence(1.5, 2.0), 1.0);
}

TEST(PriceDistributionTest, CrpsIsTheIntegralOverPrice) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    const PriceDistribution distribution = RandomDistribution(seed);
    std::mt19937_64 random(seed);
    for (int i = 0; i < 3; ++i) {
      const double truth =
          distribution.min_price() *
          std::pow(distribution.max_price() / distribution.min_price(), Uniform(random, 0, 1));
      EXPECT_NEAR(distribution.Crps(truth) / PlainCrps(distribution, truth, 8), 1.0, 1e-6) << seed;
    }
  }
}

// Bins wider and narrower than a factor of e are integrated in different ways.
TEST(PriceDistributionTest, CrpsOfWideBinsIsTheIntegralOverPrice) {
  for (const double bin_width : {0.3, 0.99, 1.01, 1.7, 3.0, 6.0}) {
    const PriceDistribution distribution(2.0, 2.0 * std::exp(3 * bin_width), {2, 1, 3});
    for (const double share : {0.0, 0.1, 0.4, 0.7, 0.95, 1.0}) {
      const double truth = 2.0 * std::exp(3 * bin_width * share);
      EXPECT_NEAR(distribution.Crps(truth) / PlainCrps(distribution, truth, 2000), 1.0, 1e-8)
          << bin_width << " " << share;
    }
  }
}

// CRPS is also twice the pinball loss averaged over all levels.
TEST(PriceDistributionTest, CrpsIsTwiceTheMeanPinballLoss) {
  constexpr int kLevels = 100000;
  for (uint64_t seed = 0; seed < 8; ++seed) {
    const PriceDistribution distribution = RandomDistribution(seed);
    for (const double truth : {distribution.Quantile(0.2), 1.5 * distribution.max_price()}) {
      double sum = 0;
      for (int i = 0; i < kLevels; ++i) {
        const double level = (i + 0.5) / kLevels;
        const double error = truth - distribution.Quantile(level);
        sum += std::max(level * error, (level - 1) * error);
      }
      EXPECT_NEAR(distribution.Crps(truth) / (2 * sum / kLevels), 1.0, 2e-3) << seed;
    }
  }
}

TEST(PriceDistributionTest, CrpsOfATruthOutsideAddsItsDistance) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    const PriceDistribution distribution = RandomDistribution(seed);
    const double low = distribution.min_price();
    const double high = distribution.max_price();
    EXPECT_NEAR(distribution.Crps(low / 3), distribution.Crps(low) + low * 2 / 3, 1e-9 * high);
    EXPECT_NEAR(distribution.Crps(high + 7), distribution.Crps(high) + 7, 1e-9 * high);
  }
}

TEST(PriceDistributionTest, CrpsOfTheTruthAtEitherEndHasItsClosedForm) {
  // F = ln x on [1, e]: the integrals of (ln x)^2 and (1 - ln x)^2.
  const double e = std::exp(1.0);
  const PriceDistribution one_bin(1.0, e, {1});
  EXPECT_NEAR(one_bin.Crps(e), e - 2, 1e-12);
  EXPECT_NEAR(one_bin.Crps(1.0), 2 * e - 5, 1e-12);
  // The same law cut into bins: narrow ones take another way.
  for (const int bins : {2, 3, 10, 1000}) {
    const PriceDistribution distribution(1.0, e, std::vector<double>(bins, 1.0));
    EXPECT_NEAR(distribution.Crps(e), e - 2, 1e-11) << bins;
    EXPECT_NEAR(distribution.Crps(2.0), one_bin.Crps(2.0), 1e-11) << bins;
  }
}

// So narrow that the price is uniform: width / 12 at the middle, width / 3 at an end.
TEST(PriceDistributionTest, CrpsOfAVeryNarrowRangeKeepsItsDigits) {
  for (const double width : {1e-3, 1e-6, 1e-9}) {
    const PriceDistribution distribution(1.0, 1.0 + width, std::vector<double>(4, 1.0));
    const double exact_width = distribution.max_price() - 1.0;
    EXPECT_NEAR(distribution.Crps(1.0 + exact_width / 2) / exact_width, 1.0 / 12, width);
    EXPECT_NEAR(distribution.Crps(1.0) / exact_width, 1.0 / 3, width);
  }
}

TEST(PriceDistributionTest, CrpsIsSmallestForTheTrueLaw) {
  const PriceDistribution law(1.0, 100.0, {1, 4, 9, 4, 1});
  const PriceDistribution sharper(1.0, 100.0, {0, 1, 9, 1, 0});
  const PriceDistribution flatter(1.0, 100.0, {1, 1, 1, 1, 1});
  double own = 0, sharp = 0, flat = 0;
  for (int i = 0; i < 2000; ++i) {
    const double truth = law.Quantile((i + 0.5) / 2000);
    own += law.Crps(truth);
    sharp += sharper.Crps(truth);
    flat += flatter.Crps(truth);
  }
  EXPECT_LT(own, sharp);
  EXPECT_LT(own, flat);
}

TEST(PriceDistributionTest, LogitsAreASoftmaxAtATemperature) {
  const std::vector<float> logits = {0.0f, std::log(2.0f), std::log(5.0f)};
  ASSERT_OK_AND_ASSIGN(const auto plain, PriceDistribution::FromLogits(1.0, 8.0, logits));
  EXPECT_THAT(plain.probabilities(), ElementsAre(DoubleNear(0.125, 1e-7), DoubleNear(0.25, 1e-7),
                                                 DoubleNear(0.625, 1e-7)));
  ASSERT_OK_AND_ASSIGN(const auto hot, PriceDistribution::FromLogits(1.0, 8.0, logits, 0.5));
  EXPECT_THAT(hot.probabilities(),
              ElementsAre(DoubleNear(1 / 30.0, 1e-7), DoubleNear(4 / 30.0, 1e-7),
                          DoubleNear(25 / 30.0, 1e-7)));
  ASSERT_OK_AND_ASSIGN(const auto cold, PriceDistribution::FromLogits(1.0, 8.0, logits, 1e12));
  EXPECT_THAT(cold.probabilities(), Each(DoubleNear(1 / 3.0, 1e-9)));
}

TEST(PriceDistributionTest, HugeLogitsDoNotOverflow) {
  ASSERT_OK_AND_ASSIGN(const auto distribution,
                       PriceDistribution::FromLogits(1.0, 8.0, {3e38f, -3e38f, 3e38f}, 1e-300));
  EXPECT_THAT(distribution.probabilities(), ElementsAre(0.5, 0.0, 0.5));
}

TEST(PriceDistributionTest, BadLogitsAreRefused) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  for (const float bad : {nan, inf, -inf}) {
    EXPECT_THAT(PriceDistribution::FromLogits(1.0, 8.0, {0.0f, bad}),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("bin 1 of 2")));
  }
  EXPECT_THAT(PriceDistribution::FromLogits(1.0, 8.0, {}),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(PriceDistribution::FromLogits(8.0, 8.0, {1.0f}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("8 to 8")));
  EXPECT_THAT(PriceDistribution::FromLogits(0.0, 8.0, {1.0f}),
              StatusIs(absl::StatusCode::kInvalidArgument));
  for (const double temperature : {0.0, -1.0, std::nan(""), HUGE_VAL}) {
    EXPECT_THAT(PriceDistribution::FromLogits(1.0, 8.0, {1.0f}, temperature),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("temperature")));
  }
}

TEST(PriceDistributionDeathTest, BrokenPreconditionsEndTheProcess) {
  EXPECT_DEATH(PriceDistribution(2.0, 1.0, {1}), "check failed");
  EXPECT_DEATH(PriceDistribution(0.0, 1.0, {1}), "check failed");
  EXPECT_DEATH(PriceDistribution(1.0, 2.0, {}), "check failed");
  EXPECT_DEATH(PriceDistribution(1.0, 2.0, {0, 0}), "check failed");
  EXPECT_DEATH(PriceDistribution(1.0, 2.0, {2, -1}), "check failed");
  EXPECT_DEATH(PriceDistribution(1.0, 2.0, {std::nan("")}), "check failed");
}

// What a whole price counts as.
double WholePrice(size_t i) { return i == 0 ? 0.5 : static_cast<double>(i); }

// Masses of up to 1000 whole prices; a third of them have none.
std::vector<double> RandomMasses(uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<double> masses(1 + random() % 1000);
  for (double& mass : masses) {
    mass = random() % 3 == 0 ? 0.0 : std::exp(Uniform(random, -8, 2));
  }
  masses[random() % masses.size()] += 0.5;
  const double sum = std::accumulate(masses.begin(), masses.end(), 0.0);
  for (double& mass : masses) mass /= sum;
  return masses;
}

// The sum of what `value` makes of each whole price, weighted by its mass.
double Expectation(const std::vector<double>& masses, const std::function<double(double)>& value) {
  double sum = 0;
  for (size_t i = 0; i < masses.size(); ++i) sum += masses[i] * value(WholePrice(i));
  return sum;
}

double PlainCdf(const std::vector<double>& masses, double price) {
  return Expectation(masses, [price](double x) { return x <= price ? 1.0 : 0.0; });
}

TEST(WholePricesTest, MassesAreNormalisedAndLieBetweenWhatRoundsToThem) {
  const auto distribution = PriceDistribution::OfWholePrices({1, 0, 2, 5});
  EXPECT_THAT(distribution.probabilities(), ElementsAre(0.125, 0, 0.25, 0.625));
  EXPECT_THAT(distribution.Edges(), ElementsAre(0, 0.5, 1.5, 2.5, 3.5));
  EXPECT_EQ(distribution.min_price(), 0.5);
  EXPECT_EQ(distribution.max_price(), 3);
}

TEST(WholePricesTest, CdfIsAStaircaseThatStepsAtThePrices) {
  const auto distribution = PriceDistribution::OfWholePrices({1, 0, 2, 4, 1});
  const auto before = [](double price) { return std::nextafter(price, 0.0); };
  EXPECT_EQ(distribution.Cdf(-1), 0);
  EXPECT_EQ(distribution.Cdf(0), 0);
  EXPECT_EQ(distribution.Cdf(before(0.5)), 0);
  EXPECT_EQ(distribution.Cdf(0.5), 0.125);
  EXPECT_EQ(distribution.Cdf(1), 0.125);
  EXPECT_EQ(distribution.Cdf(before(2)), 0.125);
  EXPECT_EQ(distribution.Cdf(2), 0.375);
  EXPECT_EQ(distribution.Cdf(2.7), 0.375);
  EXPECT_EQ(distribution.Cdf(before(3)), 0.375);
  EXPECT_EQ(distribution.Cdf(3), 0.875);
  EXPECT_EQ(distribution.Cdf(before(4)), 0.875);
  EXPECT_EQ(distribution.Cdf(4), 1);
  EXPECT_EQ(distribution.Cdf(1e9), 1);
}

TEST(WholePricesTest, CdfIsTheSumOfTheMassUpToAPrice) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    const std::vector<double> masses = RandomMasses(seed);
    const auto distribution = PriceDistribution::OfWholePrices(masses);
    std::mt19937_64 random(seed);
    for (int i = 0; i < 20; ++i) {
      const double price = Uniform(random, 0, static_cast<double>(masses.size()) + 2);
      EXPECT_NEAR(distribution.Cdf(price), PlainCdf(masses, price), 1e-12) << seed;
      EXPECT_NEAR(distribution.Cdf(std::floor(price)), PlainCdf(masses, std::floor(price)), 1e-12);
    }
  }
}

TEST(WholePricesTest, QuantileIsTheFirstPriceThatReachesItsLevel) {
  const auto distribution = PriceDistribution::OfWholePrices({0, 1, 0, 2, 0, 1, 0});
  EXPECT_EQ(distribution.Quantile(-1), 0.5);
  EXPECT_EQ(distribution.Quantile(0), 0.5);
  EXPECT_EQ(distribution.Quantile(1e-300), 1);
  EXPECT_EQ(distribution.Quantile(0.25), 1);
  EXPECT_EQ(distribution.Quantile(std::nextafter(0.25, 1.0)), 3);
  EXPECT_EQ(distribution.Quantile(0.75), 3);
  EXPECT_EQ(distribution.Quantile(std::nextafter(0.75, 1.0)), 5);
  EXPECT_EQ(distribution.Quantile(1), 5);
  EXPECT_EQ(distribution.Quantile(7), 5);
}

TEST(WholePricesTest, EveryQuantileIsAWholePriceWithMass) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    const std::vector<double> masses = RandomMasses(seed);
    const auto distribution = PriceDistribution::OfWholePrices(masses);
    for (int i = 1; i <= 1000; ++i) {
      const double level = i / 1000.0;
      const double price = distribution.Quantile(level);
      const auto index = static_cast<size_t>(price);
      ASSERT_EQ(price, WholePrice(index)) << seed;
      EXPECT_GT(masses[index], 0) << seed;
      EXPECT_GE(distribution.Cdf(price), level) << seed;
      EXPECT_LT(distribution.Cdf(std::nextafter(price, 0.0)), level) << seed;
      EXPECT_GE(PlainCdf(masses, price), level - 1e-12) << seed;
    }
  }
}

TEST(WholePricesTest, MeansAreTheSumsOverThePrices) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    const std::vector<double> masses = RandomMasses(seed);
    const auto distribution = PriceDistribution::OfWholePrices(masses);
    const double mean = Expectation(masses, [](double x) { return x; });
    const double mean_log = Expectation(masses, [](double x) { return std::log(x); });
    EXPECT_NEAR(distribution.Mean() / mean, 1.0, 1e-12) << seed;
    EXPECT_NEAR(distribution.Geomean() / std::exp(mean_log), 1.0, 1e-12) << seed;
  }
}

TEST(WholePricesTest, ModeIsTheLikeliestPriceItself) {
  EXPECT_EQ(PriceDistribution::OfWholePrices({3, 0, 2, 1}).Mode(), 0.5);
  EXPECT_EQ(PriceDistribution::OfWholePrices({1, 2, 0, 2}).Mode(), 1);
  std::vector<double> masses(1000, 1.0);
  masses[997] = 1.5;
  EXPECT_EQ(PriceDistribution::OfWholePrices(masses).Mode(), 997);
}

TEST(WholePricesTest, CentralIntervalEndsAtPricesUnlessItIsMoved) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    const std::vector<double> masses = RandomMasses(seed);
    const auto distribution = PriceDistribution::OfWholePrices(masses);
    const PriceInterval interval = distribution.CentralInterval(0.8);
    EXPECT_EQ(interval.low, distribution.Quantile((1 - 0.8) / 2));
    EXPECT_EQ(interval.high, distribution.Quantile((1 + 0.8) / 2));
    const double inside = Expectation(
        masses, [&](double x) { return interval.low <= x && x <= interval.high ? 1.0 : 0.0; });
    EXPECT_GE(inside, 0.8 - 1e-12) << seed;
  }
  const auto distribution = PriceDistribution::OfWholePrices(std::vector<double>(100, 1.0));
  const PriceInterval wide = distribution.CentralInterval(0.8, 0.1);
  EXPECT_NEAR(wide.low, 9 * std::exp(-0.1), 1e-12);
  EXPECT_NEAR(wide.high, 89 * std::exp(0.1), 1e-12);
  EXPECT_EQ(distribution.CentralInterval(0.8, 9).low, 0.5);
  EXPECT_EQ(distribution.CentralInterval(0.8, 9).high, 99);
}

// Decided in whole numbers, where 1.2 and 0.8 are exact.
TEST(WholePricesTest, ConfidenceHoldsThePricesAtBothEnds) {
  for (uint64_t seed = 0; seed < 3; ++seed) {
    std::vector<double> masses = RandomMasses(seed);
    masses.resize(1000, 1e-3);
    const double sum = std::accumulate(masses.begin(), masses.end(), 0.0);
    const auto distribution = PriceDistribution::OfWholePrices(masses);
    for (const int percent : {1, 7, 10, 20, 25, 30, 50, 100}) {
      for (int price = 1; price < 1000; ++price) {
        double mass = (100 - percent) * price <= 50 ? masses[0] : 0.0;
        for (int i = 1; i < 1000; ++i) {
          if (100 * std::abs(i - price) <= percent * price) mass += masses[i];
        }
        ASSERT_NEAR(distribution.Confidence(price, percent / 100.0), mass / sum, 1e-12)
            << price << " " << percent;
      }
    }
  }
}

TEST(WholePricesTest, ConfidenceOfTheNextPricesEndsBetweenThem) {
  const auto distribution = PriceDistribution::OfWholePrices({1, 1, 1, 1, 1, 1, 1, 1});
  EXPECT_EQ(distribution.Confidence(0.5), 0.125);
  EXPECT_EQ(distribution.Confidence(4), 0.125);
  EXPECT_EQ(distribution.Confidence(5), 0.375);
  EXPECT_EQ(distribution.Confidence(4.9), 0.25);
  EXPECT_EQ(distribution.Confidence(1.5), 0);
  EXPECT_EQ(distribution.Confidence(3, 5.0), 1);
}

// E|X - truth| - E|X - X'| / 2 (Gneiting and Raftery 2007, equation 21).
TEST(WholePricesTest, CrpsIsTheDistanceLessHalfTheSpread) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    std::vector<double> masses = RandomMasses(seed);
    const auto distribution = PriceDistribution::OfWholePrices(masses);
    const auto distance_to = [&](double y) {
      return Expectation(masses, [y](double x) { return std::abs(x - y); });
    };
    const double spread = Expectation(masses, distance_to);
    std::mt19937_64 random(seed);
    const auto size = static_cast<double>(masses.size());
    const double inside = Uniform(random, 0.5, size);
    for (const double truth :
         {inside, std::ceil(inside), 0.01, 0.5, 0.7, 1.0, size - 1, size + 7}) {
      const double score = distance_to(truth) - spread / 2;
      EXPECT_NEAR(distribution.Crps(truth), score, 1e-12 * size) << seed << " " << truth;
    }
  }
}

TEST(WholePricesTest, CrpsIsTheIntegralOverPrice) {
  // F = 1/4 on [0.5, 1), 3/4 on [1, 3), 1 from 3 on.
  const auto distribution = PriceDistribution::OfWholePrices({1, 2, 0, 1});
  EXPECT_NEAR(distribution.Crps(0.5), 0.5 * 9 / 16 + 2.0 / 16, 1e-15);
  EXPECT_NEAR(distribution.Crps(2.5), 0.5 / 16 + 1.5 * 9 / 16 + 0.5 / 16, 1e-15);
  EXPECT_NEAR(distribution.Crps(3), 0.5 / 16 + 2.0 * 9 / 16, 1e-15);
  EXPECT_NEAR(distribution.Crps(5), 0.5 / 16 + 2.0 * 9 / 16 + 2, 1e-15);
}

TEST(WholePricesTest, ACertainPriceIsEveryEstimate) {
  for (const size_t price : {0, 1, 7, 63, 999}) {
    std::vector<double> masses(1000, 0.0);
    masses[price] = 3;
    const auto distribution = PriceDistribution::OfWholePrices(masses);
    const double expected = WholePrice(price);
    for (const char* name : {"median", "mean", "mode", "quantile:0.001", "quantile:0.999"}) {
      EXPECT_EQ(distribution.Estimate(*Estimator::Parse(name)), expected) << name;
    }
    EXPECT_NEAR(distribution.Geomean() / expected, 1.0, 1e-14);
    EXPECT_EQ(distribution.CentralInterval(0.8).low, expected);
    EXPECT_EQ(distribution.CentralInterval(0.8).high, expected);
    EXPECT_EQ(distribution.Confidence(expected), 1);
    EXPECT_EQ(distribution.Crps(expected), 0);
    EXPECT_EQ(distribution.Crps(expected + 2.25), 2.25);
    EXPECT_EQ(distribution.Crps(expected / 4), expected * 3 / 4);
  }
}

TEST(WholePricesTest, TheOnlyPriceMayBeNought) {
  const auto distribution = PriceDistribution::OfWholePrices({2});
  EXPECT_EQ(distribution.min_price(), 0.5);
  EXPECT_EQ(distribution.max_price(), 0.5);
  EXPECT_THAT(distribution.Edges(), ElementsAre(0, 0.5));
  EXPECT_EQ(distribution.Cdf(0.4), 0);
  EXPECT_EQ(distribution.Cdf(0.5), 1);
  EXPECT_EQ(distribution.Quantile(0.3), 0.5);
  EXPECT_EQ(distribution.Mean(), 0.5);
  EXPECT_EQ(distribution.Crps(3), 2.5);
}

TEST(WholePricesDeathTest, BrokenPreconditionsEndTheProcess) {
  EXPECT_DEATH(PriceDistribution::OfWholePrices({}), "check failed");
  EXPECT_DEATH(PriceDistribution::OfWholePrices({0, 0}), "check failed");
  EXPECT_DEATH(PriceDistribution::OfWholePrices({2, -1}), "check failed");
  EXPECT_DEATH(PriceDistribution::OfWholePrices({std::nan("")}), "check failed");
  EXPECT_DEATH(PriceDistribution::OfWholePrices({HUGE_VAL, 1}), "check failed");
}

TEST(EstimatorTest, EveryNameIsParsed) {
  EXPECT_EQ(Estimator::Parse("")->kind, Estimator::Kind::kMedian);
  EXPECT_EQ(Estimator::Parse("median")->kind, Estimator::Kind::kMedian);
  EXPECT_EQ(Estimator::Parse("mean")->kind, Estimator::Kind::kMean);
  EXPECT_EQ(Estimator::Parse("geomean")->kind, Estimator::Kind::kGeomean);
  EXPECT_EQ(Estimator::Parse("mode")->kind, Estimator::Kind::kMode);
  ASSERT_OK_AND_ASSIGN(const Estimator quantile, Estimator::Parse("quantile:0.9"));
  EXPECT_EQ(quantile.kind, Estimator::Kind::kQuantile);
  EXPECT_EQ(quantile.level, 0.9);
}

TEST(EstimatorTest, OtherTextsAreRefusedWithTheChoices) {
  for (const char* text : {"Median", "average", "quantile", "quantile:", "quantile:0", "quantile:1",
                           "quantile:-0.5", "quantile:1.5", "quantile:nan", "quantile:0.5x"}) {
    EXPECT_THAT(Estimator::Parse(text),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         AllOf(HasSubstr(std::string("'") + text + "'"), HasSubstr("geomean"))));
  }
}

TEST(LogPriceRatioTest, IsAccurateForCloseAndForDistantPrices) {
  EXPECT_NEAR(LogPriceRatio(1.0, 1.0 + 0x1p-50) * 0x1p50, 1.0, 1e-12);
  EXPECT_NEAR(LogPriceRatio(2.0, 3.0), std::log(1.5), 1e-15);
  EXPECT_NEAR(LogPriceRatio(1e-300, 1e300), 600 * std::log(10.0), 1e-9);
  EXPECT_EQ(LogPriceRatio(7.0, 7.0), 0.0);
}

}  // namespace
}  // namespace pricer
