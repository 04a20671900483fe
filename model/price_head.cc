#include "model/price_head.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/price_distribution.h"

namespace pricer {
namespace {

// Of the training prices on either side of the range, before it is widened.
constexpr double kTailShare = 0.001;
constexpr double kWidening = 0.1;
// Quantiles closer than this in ln(price) count as one price.
constexpr double kSamePrice = 1e-6;

// Linear interpolation between order statistics (numpy's default). REQUIRES: sorted, not empty.
double QuantileOf(const std::vector<double>& sorted, double level) {
  const double position = level * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(position);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (sorted[above] - sorted[below]) * (position - static_cast<double>(below));
}

// Mass of the standard normal between a <= b, to full relative accuracy in both tails.
double NormalMass(double a, double b) {
  constexpr double kTail = 0.5;  // from here on erf has lost digits that erfc has
  const double from = a / std::numbers::sqrt2;
  const double to = b / std::numbers::sqrt2;
  if (from >= kTail) return 0.5 * (std::erfc(from) - std::erfc(to));
  if (to <= -kTail) return 0.5 * (std::erfc(-to) - std::erfc(-from));
  return 0.5 * (std::erf(to) - std::erf(from));
}

absl::Status FieldError(absl::string_view field, absl::string_view expected, double value) {
  return absl::InvalidArgumentError(
      absl::StrCat("price bins: ", field, " is ", value, ", expected ", expected));
}

absl::Status CheckPrices(absl::Span<const double> prices) {
  if (prices.empty()) return absl::InvalidArgumentError("price bins: there is no training price");
  for (size_t i = 0; i < prices.size(); ++i) {
    if (prices[i] > 0.0 && std::isfinite(prices[i])) continue;
    return absl::InvalidArgumentError(absl::StrCat("price bins: training price ", i, " is ",
                                                   prices[i], ", expected one above 0"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status BinsSpec::Validate() const {
  if (bins < 2) return FieldError("bins", "2 or more", bins);
  if (!(min_price > 0.0 && std::isfinite(min_price))) {
    return FieldError("min_price", "a number above 0", min_price);
  }
  if (!(max_price > min_price && std::isfinite(max_price))) {
    return FieldError("max_price", absl::StrCat("a number above min_price ", min_price), max_price);
  }
  if (!(sigma > 0.0 && std::isfinite(sigma))) return FieldError("sigma", "a number above 0", sigma);
  return absl::OkStatus();
}

absl::StatusOr<BinsSpec> BinsSpec::FromPrices(absl::Span<const double> prices, int bins,
                                              double sigma) {
  RETURN_IF_ERROR(CheckPrices(prices));
  std::vector<double> sorted(prices.begin(), prices.end());
  std::sort(sorted.begin(), sorted.end());
  const double low = QuantileOf(sorted, kTailShare);
  const double high = QuantileOf(sorted, 1.0 - kTailShare);
  const double distance = LogPriceRatio(low, high);
  BinsSpec spec{.bins = bins, .sigma = sigma};
  if (distance < kSamePrice) {
    spec.min_price = low * (1.0 - kWidening);
    spec.max_price = high * (1.0 + kWidening);
  } else {
    spec.min_price = low * std::exp(-kWidening * distance);
    spec.max_price = high * std::exp(kWidening * distance);
  }
  RETURN_IF_ERROR(spec.Validate());
  return spec;
}

std::vector<float> BinsSpec::Target(double price) const {
  const double width = LogPriceRatio(min_price, max_price) / bins;
  double center = 0.5;  // in bin widths from min_price
  if (price > max_price) {
    center = bins - 0.5;
  } else if (price >= min_price) {
    center = LogPriceRatio(min_price, price) / width;
  }
  std::vector<double> mass(bins);
  double sum = 0.0;
  for (int i = 0; i < bins; ++i) {
    mass[i] = NormalMass((i - center) / sigma, (i + 1 - center) / sigma);
    sum += mass[i];
  }
  std::vector<float> target(bins);
  std::transform(mass.begin(), mass.end(), target.begin(),
                 [&](double m) { return static_cast<float>(m / sum); });
  return target;
}

}  // namespace pricer
