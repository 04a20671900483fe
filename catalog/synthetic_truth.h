#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace pricer {

// Errors of predicted prices; shares and relative errors as fractions of the true price.
struct PriceErrors {
  double median_absolute_percentage_error = 0;
  double median_absolute_error = 0;
  double mae = 0;
  double mape = 0;
  double rmsle = 0;  // root mean square of the difference of ln(1 + price)
  double within_20_percent = 0;
};

// `prices` and `predictions` have the same size >= 1; prices > 0.
PriceErrors ComputePriceErrors(const std::vector<double>& prices,
                               const std::vector<double>& predictions);

// What the price without noise reaches on endless data whose noise in ln(price) is normal with
// deviation `sigma`: the share of |exp(-e) - 1| <= 0.2 and the median of |exp(-e) - 1| for
// e ~ N(0, sigma). A predictor that shades its answers can do slightly better at these two.
struct NoiseLimits {
  double median_absolute_percentage_error = 0;
  double within_20_percent = 0;
};
NoiseLimits LimitsOfNoise(double sigma);

// What the synthetic catalogue was made with and how well its prices can be known.
struct SyntheticTruth {
  uint64_t seed = 0;
  int64_t train = 0;
  int64_t validation = 0;
  int64_t test = 0;
  double noise_sigma = 0;
  // On the test part: of the price without noise, and of the training part's median price. The
  // price without noise is the median of what an item may cost, so its mean absolute error is the
  // best; at the errors relative to the true price, within_20_percent among them, a slightly
  // different answer would do slightly better.
  PriceErrors best_reachable;
  PriceErrors constant_median;
  double train_median = 0;
};

// truth.json: formula, noise, errors and every effect of the tables. Numbers have 6 significant
// digits, so that the last bits of the machine's logarithm do not show.
std::string SyntheticTruthJson(const SyntheticTruth& truth);

}  // namespace pricer
