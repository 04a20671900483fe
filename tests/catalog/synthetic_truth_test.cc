#include "catalog/synthetic_truth.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <vector>

#include "catalog/random.h"

namespace pricer {
namespace {

TEST(SyntheticTruthTest, ErrorsByHand) {
  const PriceErrors errors = ComputePriceErrors({10, 20, 40, 100}, {12, 19, 40, 50});
  EXPECT_DOUBLE_EQ(errors.mae, (2 + 1 + 0 + 50) / 4.0);
  EXPECT_DOUBLE_EQ(errors.median_absolute_error, 1.5);
  EXPECT_DOUBLE_EQ(errors.mape, (0.2 + 0.05 + 0 + 0.5) / 4);
  EXPECT_DOUBLE_EQ(errors.median_absolute_percentage_error, (0.05 + 0.2) / 2);
  EXPECT_DOUBLE_EQ(errors.within_20_percent, 0.75);
  const double squares = std::pow(std::log(13.0 / 11), 2) + std::pow(std::log(20.0 / 21), 2) +
                         std::pow(std::log(51.0 / 101), 2);
  EXPECT_NEAR(errors.rmsle, std::sqrt(squares / 4), 1e-12);
}

TEST(SyntheticTruthTest, LimitsOfNoiseMatchASimulation) {
  for (const double sigma : {0.05, 0.12, 0.5}) {
    Random random(5);
    std::vector<double> prices, predictions(200'000, 1.0);
    for (size_t i = 0; i < predictions.size(); ++i) {
      prices.push_back(std::exp(sigma * random.Normal()));
    }
    const PriceErrors errors = ComputePriceErrors(prices, predictions);
    const NoiseLimits limits = LimitsOfNoise(sigma);
    EXPECT_NEAR(limits.median_absolute_percentage_error, errors.median_absolute_percentage_error,
                0.01 * errors.median_absolute_percentage_error);
    EXPECT_NEAR(limits.within_20_percent, errors.within_20_percent, 0.005);
  }
}

TEST(SyntheticTruthTest, JsonHoldsFormulaNoiseErrorsAndEffects) {
  SyntheticTruth truth;
  truth.seed = 18446744073709551615U;
  truth.train = 80;
  truth.noise_sigma = 0.12;
  truth.best_reachable.mae = 1.23456789;
  truth.constant_median.mae = 20;
  truth.train_median = 51.5;
  const auto json = nlohmann::json::parse(SyntheticTruthJson(truth));
  EXPECT_EQ(json["seed"], 18446744073709551615U);
  EXPECT_EQ(json["items"]["train"], 80);
  EXPECT_EQ(json["noise"]["sigma"], 0.12);
  EXPECT_NEAR(json["noise"]["expected_median_absolute_percentage_error"], 0.0808, 1e-4);
  EXPECT_EQ(json["best_reachable"]["mae"], 1.23457);
  EXPECT_EQ(json["constant_median"]["mae"], 20);
  EXPECT_EQ(json["constant_median"]["price"], 51.5);
  EXPECT_EQ(json["effects"]["conditions"]["used"], -0.6);
  EXPECT_EQ(json["effects"]["categories"]["Furniture"]["types"]["sofa"]["size_reference"], 3);
  EXPECT_GE(json["effects"]["categories"].size(), 12);
}

}  // namespace
}  // namespace pricer
