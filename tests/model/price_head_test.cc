#include "model/price_head.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "model/price_distribution.h"
#include "tests/testing/status_matchers.h"

namespace pricer {
namespace {

using ::pricer::testing::IsOk;
using ::pricer::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

BinsSpec Spec(int bins = 128, double min_price = 2.0, double max_price = 3000.0,
              double sigma = kDefaultSigmaBins) {
  return {.bins = bins, .min_price = min_price, .max_price = max_price, .sigma = sigma};
}

double WidthOf(const BinsSpec& spec) {
  return std::log(spec.max_price / spec.min_price) / spec.bins;
}

// The price `position` bin widths above min_price.
double PriceAt(const BinsSpec& spec, double position) {
  return spec.min_price * std::exp(position * WidthOf(spec));
}

// The target by integrating the Gaussian's density over each bin in small steps.
std::vector<double> IntegratedTarget(const BinsSpec& spec, double position) {
  constexpr int kSteps = 2000;
  std::vector<double> mass(spec.bins, 0.0);
  for (int i = 0; i < spec.bins; ++i) {
    for (int step = 0; step < kSteps; ++step) {
      const double z = (i + (step + 0.5) / kSteps - position) / spec.sigma;
      mass[i] += std::exp(-z * z / 2);
    }
  }
  const double sum = std::accumulate(mass.begin(), mass.end(), 0.0);
  for (double& m : mass) m /= sum;
  return mass;
}

void ExpectTarget(const BinsSpec& spec, double price, double position) {
  const std::vector<float> target = spec.Target(price);
  const std::vector<double> expected = IntegratedTarget(spec, position);
  ASSERT_EQ(target.size(), expected.size());
  for (int i = 0; i < spec.bins; ++i) {
    EXPECT_NEAR(target[i], expected[i], 1e-6) << "bin " << i << ", price " << price;
  }
}

TEST(BinsSpecTest, TargetIsTheGaussianIntegratedOverEachBin) {
  for (const double sigma : {0.1, 0.75, 3.0, 40.0}) {
    for (const int bins : {2, 7, 128}) {
      const BinsSpec spec = Spec(bins, 2.0, 3000.0, sigma);
      for (const double share : {0.0, 0.001, 0.3, 0.5, 0.77, 1.0}) {
        const double position = share * bins;
        ExpectTarget(spec, PriceAt(spec, position), position);
      }
    }
  }
}

TEST(BinsSpecTest, TargetSumsToOne) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 200; ++i) {
    const BinsSpec spec = Spec(2 + static_cast<int>(random() % 200), 1.0, 50.0,
                               std::exp(static_cast<double>(random() % 1000) / 100 - 5));
    const std::vector<float> target =
        spec.Target(std::exp(static_cast<double>(random() % 1000) / 200 - 0.5));
    EXPECT_NEAR(std::accumulate(target.begin(), target.end(), 0.0), 1.0, 1e-6);
  }
}

TEST(BinsSpecTest, TruthsOutsideAreClampedToTheMiddleOfTheEndBin) {
  const BinsSpec spec = Spec(16);
  for (const double price : {1.999, 0.01, 1e-300}) ExpectTarget(spec, price, 0.5);
  for (const double price : {3000.1, 1e9, 1e300}) ExpectTarget(spec, price, 15.5);
  ExpectTarget(spec, spec.min_price, 0.0);
  ExpectTarget(spec, spec.max_price, 16.0);
}

TEST(BinsSpecTest, TargetIsSymmetricAroundTheTruth) {
  const BinsSpec spec = Spec(65);
  const std::vector<float> target = spec.Target(PriceAt(spec, 32.5));
  for (int i = 0; i < 65; ++i) EXPECT_NEAR(target[i], target[64 - i], 1e-7) << i;
  EXPECT_EQ(std::max_element(target.begin(), target.end()) - target.begin(), 32);
}

TEST(BinsSpecTest, FarTailsKeepTheirDigitsUntilTheyUnderflow) {
  const BinsSpec spec = Spec(128);
  const std::vector<float> target = spec.Target(PriceAt(spec, 64.5));
  for (int i = 0; i < 128; ++i) {
    const long double near = (std::abs(i - 64) - 0.5L) / spec.sigma / std::sqrt(2.0L);
    const long double far = (std::abs(i - 64) + 0.5L) / spec.sigma / std::sqrt(2.0L);
    const auto mass = static_cast<double>((std::erfc(near) - std::erfc(far)) / 2);
    ASSERT_TRUE(std::isfinite(target[i]));
    EXPECT_NEAR(target[i], mass, mass * 1e-6 + 1e-44) << i;
  }
  EXPECT_GT(target[64 - 8], 0.0f);
  EXPECT_EQ(target[0], 0.0f);
}

TEST(BinsSpecTest, ExtremeSigmasGiveAOneHotAndAFlatTarget) {
  const BinsSpec sharp = Spec(8, 1.0, 256.0, 1e-300);
  EXPECT_EQ(sharp.Target(3.0)[1], 1.0f);
  const BinsSpec flat = Spec(8, 1.0, 256.0, 1e250);
  for (const float mass : flat.Target(3.0)) EXPECT_NEAR(mass, 0.125f, 1e-6f);
}

TEST(BinsSpecTest, TargetReadBackGivesThePrice) {
  const BinsSpec spec = Spec();
  for (int i = 3; i < 125; ++i) {
    const double price = PriceAt(spec, i + 0.37);
    const std::vector<float> target = spec.Target(price);
    const PriceDistribution distribution(spec.min_price, spec.max_price,
                                         {target.begin(), target.end()});
    EXPECT_NEAR(std::log(distribution.Geomean() / price), 0.0, 1e-5);
    EXPECT_NEAR(std::log(distribution.Quantile(0.5) / price), 0.0, 0.05 * WidthOf(spec));
  }
}

TEST(BinsSpecTest, RangeIsTheOuterQuantilesWidenedInLogPrice) {
  // 1,001 prices: the 0.1 % and 99.9 % quantiles are the second and the last but one.
  std::vector<double> prices(1001);
  for (int i = 0; i <= 1000; ++i) prices[i] = 10.0 + i;
  std::shuffle(prices.begin(), prices.end(), std::mt19937_64(1));
  ASSERT_OK_AND_ASSIGN(const BinsSpec spec, BinsSpec::FromPrices(prices));
  const double distance = std::log(1009.0 / 11.0);
  EXPECT_NEAR(spec.min_price, 11.0 * std::exp(-0.1 * distance), 1e-9);
  EXPECT_NEAR(spec.max_price, 1009.0 * std::exp(0.1 * distance), 1e-9);
  EXPECT_EQ(spec.bins, 128);
  EXPECT_EQ(spec.sigma, 0.75);
}

TEST(BinsSpecTest, QuantilesInterpolateBetweenPrices) {
  ASSERT_OK_AND_ASSIGN(const BinsSpec spec, BinsSpec::FromPrices({30.0, 10.0, 20.0}, 32, 1.5));
  const double low = 10.0 + 10.0 * 0.002;
  const double high = 20.0 + 10.0 * 0.998;
  EXPECT_NEAR(spec.min_price, low * std::pow(high / low, -0.1), 1e-9);
  EXPECT_NEAR(spec.max_price, high * std::pow(high / low, 0.1), 1e-9);
  EXPECT_EQ(spec.bins, 32);
  EXPECT_EQ(spec.sigma, 1.5);
}

TEST(BinsSpecTest, SingleDistinctPriceIsWidenedByATenthOfItself) {
  for (const int count : {1, 2, 5000}) {
    ASSERT_OK_AND_ASSIGN(const BinsSpec spec,
                         BinsSpec::FromPrices(std::vector<double>(count, 40.0)));
    EXPECT_NEAR(spec.min_price, 36.0, 1e-12);
    EXPECT_NEAR(spec.max_price, 44.0, 1e-12);
  }
}

TEST(BinsSpecTest, OutliersDoNotStretchTheRange) {
  std::vector<double> prices(9999, 0.0);
  for (size_t i = 0; i < prices.size(); ++i) prices[i] = 20.0 + static_cast<double>(i) / 100;
  prices.push_back(1e7);
  ASSERT_OK_AND_ASSIGN(const BinsSpec spec, BinsSpec::FromPrices(prices));
  EXPECT_LT(spec.max_price, 200.0);
}

TEST(BinsSpecTest, BadPricesAreRefusedByRow) {
  EXPECT_THAT(BinsSpec::FromPrices({}), StatusIs(absl::StatusCode::kInvalidArgument));
  for (const double bad : {0.0, -3.0, std::nan(""), kInfinity}) {
    EXPECT_THAT(BinsSpec::FromPrices({1.0, bad}),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("price 1 is")));
  }
  EXPECT_THAT(BinsSpec::FromPrices({1.0, 2.0}, 1),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("bins is 1")));
}

TEST(BinsSpecTest, ValidateNamesTheField) {
  EXPECT_THAT(Spec().Validate(), IsOk());
  const auto refused = [](const BinsSpec& spec, const std::string& field) {
    EXPECT_THAT(spec.Validate(),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(field + " is")));
  };
  refused(Spec(1), "bins");
  refused(Spec(-5), "bins");
  for (const double bad : {0.0, -1.0, std::nan(""), kInfinity}) {
    refused(Spec(128, bad), "min_price");
    refused(Spec(128, 2.0, 3000.0, bad), "sigma");
  }
  for (const double bad : {2.0, 1.0, std::nan(""), kInfinity}) {
    refused(Spec(128, 2.0, bad), "max_price");
  }
}

}  // namespace
}  // namespace pricer
