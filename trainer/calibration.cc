#include "trainer/calibration.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "absl/strings/str_cat.h"

namespace pricer {
namespace {

constexpr double kLowestInverse = 0.25;
constexpr double kHighestInverse = 4.0;

int BinOf(const BinsSpec& bins, double price) {
  const double width = std::log(bins.max_price / bins.min_price) / bins.bins;
  const double position = std::floor(std::log(price / bins.min_price) / width);
  return static_cast<int>(std::clamp(position, 0.0, static_cast<double>(bins.bins - 1)));
}

double LogSumExp(absl::Span<const float> logits, double scale) {
  const double highest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (float logit : logits) sum += std::exp(scale * (logit - highest));
  return scale * highest + std::log(sum);
}

// Distance in ln(price) from the truth to the interval, negative inside.
double DistanceToInterval(const PriceInterval& interval, double price) {
  return std::max(std::log(interval.low / price), std::log(price / interval.high));
}

}  // namespace

double NegativeLogLikelihood(const BinsSpec& bins, absl::Span<const HeldOutItem> items,
                             double temperature) {
  const double scale = 1.0 / temperature;
  double sum = 0;
  for (const HeldOutItem& item : items) {
    sum += LogSumExp(item.logits, scale) - scale * item.logits[BinOf(bins, item.price)];
  }
  return sum / static_cast<double>(items.size());
}

double FitTemperature(const BinsSpec& bins, absl::Span<const HeldOutItem> items) {
  const double ratio = 1.0 / std::numbers::phi;
  const auto loss = [&](double inverse) {
    return NegativeLogLikelihood(bins, items, 1.0 / inverse);
  };
  double low = kLowestInverse;
  double high = kHighestInverse;
  double left = high - ratio * (high - low);
  double right = low + ratio * (high - low);
  double left_loss = loss(left);
  double right_loss = loss(right);
  while (high - low > 1e-3 * low) {
    if (left_loss <= right_loss) {
      high = right;
      right = left;
      right_loss = left_loss;
      left = high - ratio * (high - low);
      left_loss = loss(left);
    } else {
      low = left;
      left = right;
      left_loss = right_loss;
      right = low + ratio * (high - low);
      right_loss = loss(right);
    }
  }
  return 2.0 / (low + high);
}

std::map<std::string, double> FitConformal(absl::Span<const PriceDistribution> distributions,
                                           absl::Span<const double> prices,
                                           absl::Span<const double> coverages) {
  std::map<std::string, double> offsets;
  const size_t count = distributions.size();
  for (double coverage : coverages) {
    // The margin keeps a product that is whole but for rounding from being rounded up.
    const size_t rank =
        static_cast<size_t>(std::ceil(coverage * static_cast<double>(count + 1) - 1e-9));
    if (rank > count) continue;
    std::vector<double> distances;
    distances.reserve(count);
    for (size_t i = 0; i < count; ++i) {
      distances.push_back(
          DistanceToInterval(distributions[i].CentralInterval(coverage), prices[i]));
    }
    std::nth_element(distances.begin(), distances.begin() + (rank - 1), distances.end());
    offsets[absl::StrCat(coverage)] = distances[rank - 1];
  }
  return offsets;
}

}  // namespace pricer
