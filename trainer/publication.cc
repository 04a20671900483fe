#include "trainer/publication.h"

#include <algorithm>
#include <array>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/price_distribution.h"
#include "trainer/calibration.h"
#include "trainer/metrics.h"

namespace pricer {
namespace {

constexpr std::array<double, 4> kConformalCoverages = {0.5, 0.8, 0.9, 0.95};

absl::StatusOr<std::vector<PriceDistribution>> Distributions(
    const Manifest& manifest, absl::Span<const std::vector<float>> scores) {
  std::vector<PriceDistribution> distributions;
  distributions.reserve(scores.size());
  for (const std::vector<float>& row : scores) {
    auto distribution = manifest.Distribution(row);
    if (!distribution.ok()) return absl::InternalError(distribution.status().message());
    distributions.push_back(*std::move(distribution));
  }
  return distributions;
}

// Indices of `count` items whose prices are spread evenly over the ranks of all.
std::vector<int64_t> SpreadByPrice(absl::Span<const double> prices, int64_t count) {
  std::vector<int64_t> order(prices.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return prices[a] < prices[b]; });
  const int64_t items = static_cast<int64_t>(order.size());
  std::vector<int64_t> chosen;
  for (int64_t i = 0; i < std::min(count, items); ++i) {
    chosen.push_back(order[i * items / std::min(count, items)]);
  }
  return chosen;
}

std::map<std::string, double> EvaluationMap(const Metrics& metrics, double training_median,
                                            absl::Span<const double> prices) {
  return {{"items", static_cast<double>(metrics.items)},
          {"mae", metrics.mae},
          {"median_absolute_error", metrics.median_absolute_error},
          {"rmsle", metrics.rmsle},
          {"mape", metrics.mape},
          {"within_20_percent", metrics.within_20_percent},
          {"pinball", metrics.pinball},
          {"crps", metrics.crps},
          {"training_median", training_median},
          {"training_median_mae", MeasureConstant(training_median, prices).mae}};
}

}  // namespace

absl::Status Calibrate(const Dataset& validation, absl::Span<const std::vector<float>> scores,
                       double training_median, Manifest* manifest) {
  const std::vector<double> prices = validation.Prices();
  if (static_cast<int64_t>(prices.size()) < kMinGoldenItems) {
    return absl::FailedPreconditionError(
        absl::StrCat(validation.path, ": ", prices.size(), " items; at least ", kMinGoldenItems,
                     " are needed to calibrate and check an adapter"));
  }
  if (manifest->head == HeadKind::kBins) {
    std::vector<HeldOutItem> items;
    for (size_t i = 0; i < prices.size(); ++i) items.push_back({scores[i], prices[i]});
    manifest->temperature = FitTemperature(manifest->bins, items);
  }
  ASSIGN_OR_RETURN(const std::vector<PriceDistribution> distributions,
                   Distributions(*manifest, scores));
  manifest->conformal = FitConformal(distributions, prices, kConformalCoverages);

  const double offset = manifest->ConformalOffset(kDefaultIntervalCoverage);
  std::vector<ScoredPrice> predictions;
  for (size_t i = 0; i < prices.size(); ++i) {
    predictions.push_back(ScoreDistribution(distributions[i], offset, prices[i]));
  }
  manifest->evaluation = EvaluationMap(Measure(predictions), training_median, prices);
  manifest->golden.clear();
  for (int64_t i : SpreadByPrice(prices, kGoldenItems)) {
    manifest->golden.push_back({.item = validation.texts[i],
                                .price = predictions[i].price,
                                .low = predictions[i].interval->low,
                                .high = predictions[i].interval->high});
  }
  return absl::OkStatus();
}

}  // namespace pricer
