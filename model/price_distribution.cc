#include "model/price_distribution.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/check.h"

namespace pricer {
namespace {

// What the price 0 counts as.
constexpr double kZeroPrice = 0.5;

// price * exp(exponent), in two factors: the whole range of a double is too much for one.
double ScaledByExp(double price, double exponent) {
  const double root = std::exp(exponent / 2.0);
  return price * root * root;
}

// The integrals over y in [0, 1] of exp(h y) times (1 - y)^2, y (1 - y) and y^2.
struct QuadraticWeights {
  double low = 0;
  double mixed = 0;
  double high = 0;
};

// Power series of exp(h y), integrated by term. All terms are positive, so it loses no digit.
QuadraticWeights SeriesWeights(double h) {
  QuadraticWeights weights;
  double term = 1.0;  // h^j / j!
  for (int j = 0; j < 40 && term > 1e-18; ++j) {
    const double n = j;
    weights.low += term * 2.0 / ((n + 1) * (n + 2) * (n + 3));
    weights.mixed += term / ((n + 2) * (n + 3));
    weights.high += term / (n + 3);
    term *= h / (n + 1);
  }
  return weights;
}

QuadraticWeights WeightsOf(double h) {
  if (h < 1.0) return SeriesWeights(h);
  const double e = std::exp(h);
  const double cube = h * h * h;
  return {.low = (2.0 * e - 2.0 - 2.0 * h - h * h) / cube,
          .mixed = (e * (h - 2.0) + h + 2.0) / cube,
          .high = (e * (h * h - 2.0 * h + 2.0) - 2.0) / cube};
}

// Integral of g(x)^2 over prices x from `price` to price * exp(h), where g goes from `from` to `to`
// linearly in ln(x). from * to >= 0 makes it a sum of positive terms.
double SquareIntegral(double price, double h, const QuadraticWeights& weights, double from,
                      double to) {
  return price * h *
         (from * from * weights.low + 2.0 * from * to * weights.mixed + to * to * weights.high);
}

absl::Status BadLogits(absl::string_view problem) {
  return absl::InvalidArgumentError(absl::StrCat("bin logits: ", problem));
}

}  // namespace

double LogPriceRatio(double low, double high) {
  const double excess = (high - low) / low;
  return excess < 1.0 ? std::log1p(excess) : std::log(high) - std::log(low);
}

absl::StatusOr<Estimator> Estimator::Parse(absl::string_view text) {
  if (text.empty() || text == "median") return Estimator{Kind::kMedian};
  if (text == "mean") return Estimator{Kind::kMean};
  if (text == "geomean") return Estimator{Kind::kGeomean};
  if (text == "mode") return Estimator{Kind::kMode};
  absl::string_view level_text = text;
  double level = 0;
  if (absl::ConsumePrefix(&level_text, "quantile:") && absl::SimpleAtod(level_text, &level) &&
      level > 0.0 && level < 1.0) {
    return Estimator{Kind::kQuantile, level};
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "estimator '", text,
      "': expected median, mean, geomean, mode or quantile:Q with 0 < Q < 1, as quantile:0.9"));
}

std::shared_ptr<const PriceDistribution::Bins> PriceDistribution::BinsOver(double min_price,
                                                                           double max_price,
                                                                           int count) {
  PRICER_CHECK(min_price > 0.0 && min_price < max_price && std::isfinite(max_price));
  PRICER_CHECK(count > 0);
  // A batch has many distributions of the same bins, one after the other.
  thread_local std::shared_ptr<const Bins> latest;
  if (latest != nullptr && latest->min_price == min_price && latest->max_price == max_price &&
      latest->starts.size() == static_cast<size_t>(count)) {
    return latest;
  }
  auto bins = std::make_shared<Bins>();
  bins->min_price = min_price;
  bins->max_price = max_price;
  bins->width = LogPriceRatio(min_price, max_price) / count;
  bins->starts.reserve(count);
  bins->offsets.reserve(count);
  for (int i = 0; i < count; ++i) {
    bins->offsets.push_back(i * bins->width);
    bins->starts.push_back(
        std::clamp(ScaledByExp(min_price, bins->offsets[i]), min_price, max_price));
  }
  return latest = std::move(bins);
}

std::shared_ptr<const PriceDistribution::Bins> PriceDistribution::BinsOfWholePrices(int count) {
  PRICER_CHECK(count > 0);
  thread_local std::shared_ptr<const Bins> latest;
  if (latest != nullptr && latest->starts.size() == static_cast<size_t>(count)) return latest;
  auto bins = std::make_shared<Bins>();
  bins->min_price = kZeroPrice;
  bins->starts.reserve(count);
  bins->offsets.reserve(count);
  for (int i = 0; i < count; ++i) {
    bins->starts.push_back(i == 0 ? kZeroPrice : i);
    bins->offsets.push_back(LogPriceRatio(kZeroPrice, bins->starts[i]));
  }
  bins->max_price = bins->starts.back();
  return latest = std::move(bins);
}

std::shared_ptr<const PriceDistribution::Masses> PriceDistribution::Normalised(
    std::vector<double> masses) {
  auto normalised = std::make_shared<Masses>();
  std::vector<double>& cumulative = normalised->cumulative;
  cumulative.reserve(masses.size() + 1);
  cumulative.push_back(0.0);
  for (const double mass : masses) {
    PRICER_CHECK(mass >= 0.0);
    cumulative.push_back(cumulative.back() + mass);
  }
  // Divided by the last partial sum, the sum is exactly 1 from the last bin with mass on.
  const double sum = cumulative.back();
  PRICER_CHECK(sum > 0.0 && std::isfinite(sum));
  for (double& mass : masses) mass /= sum;
  for (double& partial : cumulative) partial /= sum;
  normalised->probabilities = std::move(masses);
  return normalised;
}

PriceDistribution::PriceDistribution(std::shared_ptr<const Bins> bins, std::vector<double> masses)
    : bins_(std::move(bins)), masses_(Normalised(std::move(masses))) {}

PriceDistribution::PriceDistribution(double min_price, double max_price,
                                     std::vector<double> probabilities)
    : bins_(BinsOver(min_price, max_price, static_cast<int>(probabilities.size()))),
      masses_(Normalised(std::move(probabilities))) {}

PriceDistribution PriceDistribution::OfWholePrices(std::vector<double> masses) {
  std::shared_ptr<const Bins> bins = BinsOfWholePrices(static_cast<int>(masses.size()));
  return PriceDistribution(std::move(bins), std::move(masses));
}

absl::StatusOr<PriceDistribution> PriceDistribution::FromLogits(double min_price, double max_price,
                                                                absl::Span<const float> logits,
                                                                double temperature) {
  if (!(min_price > 0.0 && min_price < max_price && std::isfinite(max_price))) {
    return BadLogits(
        absl::StrCat("expected a price range 0 < min < max, got ", min_price, " to ", max_price));
  }
  if (!(temperature > 0.0 && std::isfinite(temperature))) {
    return BadLogits(absl::StrCat("expected a temperature above 0, got ", temperature));
  }
  if (logits.empty()) return BadLogits("there is none");
  for (size_t i = 0; i < logits.size(); ++i) {
    if (!std::isfinite(logits[i])) {
      return BadLogits(
          absl::StrCat("bin ", i, " of ", logits.size(), " is ", logits[i], ", expected a number"));
    }
  }
  const double largest = *std::max_element(logits.begin(), logits.end());
  std::vector<double> probabilities(logits.size());
  std::transform(logits.begin(), logits.end(), probabilities.begin(),
                 [&](float logit) { return std::exp((logit - largest) / temperature); });
  return PriceDistribution(min_price, max_price, std::move(probabilities));
}

double PriceDistribution::PriceAt(size_t bin, double share) const {
  return std::clamp(ScaledByExp(bins_->starts[bin], share * bins_->width), min_price(),
                    max_price());
}

std::vector<double> PriceDistribution::Edges() const {
  std::vector<double> edges = bins_->starts;
  if (IsOfWholePrices()) {
    for (int i = 0; i < bin_count(); ++i) edges[i] = std::max(i - 0.5, 0.0);
    edges.push_back(bin_count() - 0.5);
  } else {
    edges.push_back(max_price());
  }
  return edges;
}

double PriceDistribution::Cdf(double price) const {
  if (!(price >= min_price())) return 0.0;
  if (price >= max_price()) return 1.0;
  const auto next = std::upper_bound(bins_->starts.begin(), bins_->starts.end(), price);
  const auto bin = static_cast<size_t>(next - bins_->starts.begin() - 1);
  const double inside = std::max(LogPriceRatio(min_price(), price) - bins_->offsets[bin], 0.0);
  const double share = inside < bins_->width ? inside / bins_->width : 1.0;
  // At a share of 1 it is the partial sum in every bit, as Quantile takes it.
  return std::lerp(masses_->cumulative[bin], masses_->cumulative[bin + 1], share);
}

double PriceDistribution::Quantile(double level) const {
  if (!(level > 0.0)) return min_price();
  level = std::min(level, 1.0);
  // The first bin at whose end the CDF reaches the level; it rises there, since it was below at the
  // start.
  const auto end =
      std::lower_bound(masses_->cumulative.begin() + 1, masses_->cumulative.end(), level);
  const auto bin = static_cast<size_t>(end - masses_->cumulative.begin() - 1);
  const double below = *(end - 1);
  return PriceAt(bin, (level - below) / (*end - below));
}

double PriceDistribution::Mean() const {
  // exp(u) averaged over a bin that begins at price x is x * expm1(w) / w.
  const double average = IsOfWholePrices() ? 1.0 : std::expm1(bins_->width) / bins_->width;
  const double sum = std::inner_product(probabilities().begin(), probabilities().end(),
                                        bins_->starts.begin(), 0.0);
  return std::clamp(sum * average, min_price(), max_price());
}

double PriceDistribution::Geomean() const {
  double offset = 0.0;
  for (int i = 0; i < bin_count(); ++i) {
    offset += probabilities()[i] * (bins_->offsets[i] + 0.5 * bins_->width);
  }
  return std::clamp(ScaledByExp(min_price(), offset), min_price(), max_price());
}

double PriceDistribution::Mode() const {
  const auto likeliest = std::max_element(probabilities().begin(), probabilities().end());
  return PriceAt(static_cast<size_t>(likeliest - probabilities().begin()), 0.5);
}

double PriceDistribution::Estimate(const Estimator& estimator) const {
  switch (estimator.kind) {
    case Estimator::Kind::kMedian:
      return Quantile(0.5);
    case Estimator::Kind::kMean:
      return Mean();
    case Estimator::Kind::kGeomean:
      return Geomean();
    case Estimator::Kind::kMode:
      return Mode();
    case Estimator::Kind::kQuantile:
      return Quantile(estimator.level);
  }
  PRICER_CHECK(false);
  return 0.0;
}

PriceInterval PriceDistribution::CentralInterval(double coverage, double conformal_offset) const {
  double low = Quantile((1.0 - coverage) / 2.0) * std::exp(-conformal_offset);
  double high = Quantile((1.0 + coverage) / 2.0) * std::exp(conformal_offset);
  // Narrowed below nothing: the geometric middle is left.
  if (low > high) low = high = std::sqrt(low) * std::sqrt(high);
  return {.coverage = coverage,
          .low = std::clamp(low, min_price(), max_price()),
          .high = std::clamp(high, min_price(), max_price())};
}

double PriceDistribution::Confidence(double price, double share) const {
  // Rounded outward past the products' own rounding: a mass may lie at either end.
  constexpr double kRounding = 4.0 * std::numeric_limits<double>::epsilon();
  return Cdf(price * (1.0 + share) * (1.0 + kRounding)) -
         Cdf(price * (1.0 - share) * (1.0 - kRounding));
}

double PriceDistribution::Crps(double truth) const {
  const double inside = std::clamp(truth, min_price(), max_price());
  const double offset = LogPriceRatio(min_price(), inside);
  const QuadraticWeights whole = WeightsOf(bins_->width);
  double score = std::fabs(truth - inside);
  for (int i = 0; i < bin_count(); ++i) {
    const double from = masses_->cumulative[i];
    const double to = masses_->cumulative[i + 1];
    const double below = std::clamp(offset - bins_->offsets[i], 0.0, bins_->width);
    const double above = bins_->width - below;
    if (above == 0.0) {
      score += SquareIntegral(bins_->starts[i], bins_->width, whole, from, to);
    } else if (below == 0.0) {
      score += SquareIntegral(bins_->starts[i], bins_->width, whole, 1.0 - from, 1.0 - to);
    } else {
      const double at = std::lerp(from, to, below / bins_->width);
      score += SquareIntegral(bins_->starts[i], below, WeightsOf(below), from, at);
      score += SquareIntegral(inside, above, WeightsOf(above), 1.0 - at, 1.0 - to);
    }
    // The step up to the next bin.
    const double next = i + 1 < bin_count() ? bins_->starts[i + 1] : max_price();
    const double end = IsOfWholePrices() ? bins_->starts[i] : next;
    const double step_below = std::clamp(inside, end, next) - end;
    score += to * to * step_below + (1.0 - to) * (1.0 - to) * (next - end - step_below);
  }
  return score;
}

}  // namespace pricer
