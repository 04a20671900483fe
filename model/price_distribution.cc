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

PriceDistribution::PriceDistribution(double min_price, double max_price,
                                     std::vector<double> probabilities)
    : min_price_(min_price), max_price_(max_price), probabilities_(std::move(probabilities)) {
  PRICER_CHECK(min_price > 0.0 && min_price < max_price && std::isfinite(max_price));
  PRICER_CHECK(!probabilities_.empty());
  bin_width_ = LogPriceRatio(min_price, max_price) / bin_count();
  starts_.reserve(probabilities_.size());
  offsets_.reserve(probabilities_.size());
  for (int i = 0; i < bin_count(); ++i) {
    offsets_.push_back(i * bin_width_);
    starts_.push_back(std::clamp(ScaledByExp(min_price, offsets_[i]), min_price, max_price));
  }
  Normalise();
}

PriceDistribution::PriceDistribution(std::vector<double> masses)
    : min_price_(kZeroPrice), bin_width_(0.0), probabilities_(std::move(masses)) {
  PRICER_CHECK(!probabilities_.empty());
  starts_.reserve(probabilities_.size());
  offsets_.reserve(probabilities_.size());
  for (int i = 0; i < bin_count(); ++i) {
    starts_.push_back(i == 0 ? kZeroPrice : i);
    offsets_.push_back(LogPriceRatio(min_price_, starts_[i]));
  }
  max_price_ = starts_.back();
  Normalise();
}

PriceDistribution PriceDistribution::OfWholePrices(std::vector<double> masses) {
  return PriceDistribution(std::move(masses));
}

void PriceDistribution::Normalise() {
  cumulative_.reserve(probabilities_.size() + 1);
  cumulative_.push_back(0.0);
  for (const double probability : probabilities_) {
    PRICER_CHECK(probability >= 0.0);
    cumulative_.push_back(cumulative_.back() + probability);
  }
  // Divided by the last partial sum, the sum is exactly 1 from the last bin with mass on.
  const double sum = cumulative_.back();
  PRICER_CHECK(sum > 0.0 && std::isfinite(sum));
  for (double& probability : probabilities_) probability /= sum;
  for (double& partial : cumulative_) partial /= sum;
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
  return std::clamp(ScaledByExp(starts_[bin], share * bin_width_), min_price_, max_price_);
}

std::vector<double> PriceDistribution::Edges() const {
  std::vector<double> edges = starts_;
  if (IsOfWholePrices()) {
    for (int i = 0; i < bin_count(); ++i) edges[i] = std::max(i - 0.5, 0.0);
    edges.push_back(bin_count() - 0.5);
  } else {
    edges.push_back(max_price_);
  }
  return edges;
}

double PriceDistribution::Cdf(double price) const {
  if (!(price >= min_price_)) return 0.0;
  if (price >= max_price_) return 1.0;
  const auto next = std::upper_bound(starts_.begin(), starts_.end(), price);
  const auto bin = static_cast<size_t>(next - starts_.begin() - 1);
  const double inside = std::max(LogPriceRatio(min_price_, price) - offsets_[bin], 0.0);
  const double share = inside < bin_width_ ? inside / bin_width_ : 1.0;
  // At a share of 1 it is the partial sum in every bit, as Quantile takes it.
  return std::lerp(cumulative_[bin], cumulative_[bin + 1], share);
}

double PriceDistribution::Quantile(double level) const {
  if (!(level > 0.0)) return min_price_;
  level = std::min(level, 1.0);
  // The first bin at whose end the CDF reaches the level; it rises there, since it was below at the
  // start.
  const auto end = std::lower_bound(cumulative_.begin() + 1, cumulative_.end(), level);
  const auto bin = static_cast<size_t>(end - cumulative_.begin() - 1);
  const double below = *(end - 1);
  return PriceAt(bin, (level - below) / (*end - below));
}

double PriceDistribution::Mean() const {
  // exp(u) averaged over a bin that begins at price x is x * expm1(w) / w.
  const double average = IsOfWholePrices() ? 1.0 : std::expm1(bin_width_) / bin_width_;
  const double sum =
      std::inner_product(probabilities_.begin(), probabilities_.end(), starts_.begin(), 0.0);
  return std::clamp(sum * average, min_price_, max_price_);
}

double PriceDistribution::Geomean() const {
  double offset = 0.0;
  for (int i = 0; i < bin_count(); ++i) {
    offset += probabilities_[i] * (offsets_[i] + 0.5 * bin_width_);
  }
  return std::clamp(ScaledByExp(min_price_, offset), min_price_, max_price_);
}

double PriceDistribution::Mode() const {
  const auto likeliest = std::max_element(probabilities_.begin(), probabilities_.end());
  return PriceAt(static_cast<size_t>(likeliest - probabilities_.begin()), 0.5);
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
          .low = std::clamp(low, min_price_, max_price_),
          .high = std::clamp(high, min_price_, max_price_)};
}

double PriceDistribution::Confidence(double price, double share) const {
  // Rounded outward past the products' own rounding: a mass may lie at either end.
  constexpr double kRounding = 4.0 * std::numeric_limits<double>::epsilon();
  return Cdf(price * (1.0 + share) * (1.0 + kRounding)) -
         Cdf(price * (1.0 - share) * (1.0 - kRounding));
}

double PriceDistribution::Crps(double truth) const {
  const double inside = std::clamp(truth, min_price_, max_price_);
  const double offset = LogPriceRatio(min_price_, inside);
  const QuadraticWeights whole = WeightsOf(bin_width_);
  double score = std::fabs(truth - inside);
  for (int i = 0; i < bin_count(); ++i) {
    const double from = cumulative_[i];
    const double to = cumulative_[i + 1];
    const double below = std::clamp(offset - offsets_[i], 0.0, bin_width_);
    const double above = bin_width_ - below;
    if (above == 0.0) {
      score += SquareIntegral(starts_[i], bin_width_, whole, from, to);
    } else if (below == 0.0) {
      score += SquareIntegral(starts_[i], bin_width_, whole, 1.0 - from, 1.0 - to);
    } else {
      const double at = std::lerp(from, to, below / bin_width_);
      score += SquareIntegral(starts_[i], below, WeightsOf(below), from, at);
      score += SquareIntegral(inside, above, WeightsOf(above), 1.0 - at, 1.0 - to);
    }
    // The step up to the next bin.
    const double next = i + 1 < bin_count() ? starts_[i + 1] : max_price_;
    const double end = IsOfWholePrices() ? starts_[i] : next;
    const double step_below = std::clamp(inside, end, next) - end;
    score += to * to * step_below + (1.0 - to) * (1.0 - to) * (next - end - step_below);
  }
  return score;
}

}  // namespace pricer
