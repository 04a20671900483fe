#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "model/price_distribution.h"

// Errors of predicted prices. Pure arithmetic; prices are in one currency.

namespace pricer {

inline constexpr std::array<double, 7> kQuantileLevels = {0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95};
// The same as keys of JSON objects.
inline constexpr std::array<absl::string_view, 7> kQuantileKeys = {"0.05", "0.1", "0.25", "0.5",
                                                                   "0.75", "0.9", "0.95"};

// What was predicted of one item, beside the truth. A prediction that is a single price has neither
// interval nor quantiles.
struct ScoredPrice {
  double price = 0;
  double truth = 0;
  std::optional<PriceInterval> interval;  // of kDefaultIntervalCoverage
  std::optional<std::array<double, kQuantileLevels.size()>> quantiles;
  // In units of the currency; of a single price its absolute error.
  double crps = 0;
};

// What `estimator` says of `distribution`, its quantiles, its CRPS and its interval widened by
// `conformal_offset` (in ln price).
ScoredPrice ScoreDistribution(const PriceDistribution& distribution, double conformal_offset,
                              double truth, const Estimator& estimator = {});
ScoredPrice ScorePoint(double price, double truth);

struct Metrics {
  int64_t items = 0;
  double mae = 0;                    // mean |price - truth|
  double median_absolute_error = 0;  // of an even count: the mean of the middle two
  double rmsle = 0;                  // sqrt(mean((ln(1 + price) - ln(1 + truth))^2))
  double mape = 0;                   // mean |price - truth| / truth
  double within_20_percent = 0;      // share with |price - truth| <= truth / 5
  // Share of truths inside the interval; absent without intervals.
  std::optional<double> coverage_80;
  double pinball = 0;  // mean over items and kQuantileLevels; a price alone is every quantile
  double crps = 0;     // mean
  // Items of which nothing could be read: no number in the generated text, no mass on prices.
  int64_t unparsable = 0;
};

// REQUIRES: not empty; truths > 0. `unparsable` is left 0.
Metrics Measure(absl::Span<const ScoredPrice> scores);

// The metrics of predicting `price` for every one of `truths`.
Metrics MeasureConstant(double price, absl::Span<const double> truths);

}  // namespace pricer
