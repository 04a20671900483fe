#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

// Pure arithmetic on a distribution of prices; no torch, no I/O.

namespace pricer {

// Of an interval where nobody asks for another.
inline constexpr double kDefaultIntervalCoverage = 0.8;

// What single number is wanted of a distribution: the best one for the caller's loss.
struct Estimator {
  enum class Kind { kMedian, kMean, kGeomean, kMode, kQuantile };
  Kind kind = Kind::kMedian;
  // kQuantile alone, in (0, 1).
  double level = 0.5;

  // "median", "mean", "geomean", "mode", "quantile:0.9"; empty = median. InvalidArgument names the
  // text and the choices.
  static absl::StatusOr<Estimator> Parse(absl::string_view text);
};

struct PriceInterval {
  double coverage = 0;
  double low = 0;
  double high = 0;
};

// ln(high / low), accurate where the two are close and where their quotient overflows.
// REQUIRES: 0 < low <= high.
double LogPriceRatio(double low, double high);

// A distribution over prices in one currency: masses of bins in ascending order, all of one width
// in ln(price), and nothing between them. Two kinds:
//   bins over a range: each begins where the last ends; the density is uniform in ln(price) inside;
//   whole prices: of width 0, each mass lies at one price, and the CDF is a staircase.
// Immutable, and a copy shares what it is of; thread-safe.
class PriceDistribution {
 public:
  // Bins over a range. REQUIRES: 0 < min_price < max_price, at least one probability, all >= 0 with
  // a positive sum (they are normalised).
  PriceDistribution(double min_price, double max_price, std::vector<double> probabilities);

  // Masses of the prices 0, 1, 2, ..., normalised. The price 0 counts as 0.5: what rounds to it is
  // at most that, and unlike 0 it has a logarithm. So the range is 0.5 to masses.size() - 1. Same
  // requirements of the masses.
  static PriceDistribution OfWholePrices(std::vector<double> masses);

  // Softmax of logits / temperature over the bins. InvalidArgument where a logit is not finite or
  // there is none, and for a range or temperature out of bounds.
  static absl::StatusOr<PriceDistribution> FromLogits(double min_price, double max_price,
                                                      absl::Span<const float> logits,
                                                      double temperature = 1.0);

  double min_price() const { return bins_->min_price; }
  double max_price() const { return bins_->max_price; }
  int bin_count() const { return static_cast<int>(probabilities().size()); }
  const std::vector<double>& probabilities() const { return masses_->probabilities; }
  // What this one takes, without what it shares with others of its bins.
  size_t memory_bytes() const {
    return sizeof(*this) + sizeof(Masses) +
           sizeof(double) * (masses_->probabilities.capacity() + masses_->cumulative.capacity());
  }
  // bin_count() + 1 ascending prices. Between those of a whole price lies what rounds to it: they
  // are 0, 0.5, 1.5, ...
  std::vector<double> Edges() const;

  // P(price <= x): 0 below min_price, 1 above max_price.
  double Cdf(double price) const;
  // Smallest price whose CDF reaches `level`, from min_price for 0 to the end of the last bin with
  // mass for 1. Levels outside [0, 1] count as its ends. Of whole prices always one of them.
  double Quantile(double level) const;
  // Exact: integral of exp(u) over the uniform density in u = ln(price).
  double Mean() const;
  // exp(E ln price).
  double Geomean() const;
  // Geometric middle of the likeliest bin (the lowest of equals): of whole prices the price itself.
  double Mode() const;
  double Estimate(const Estimator& estimator) const;
  // Central interval: quantiles (1 - coverage) / 2 and (1 + coverage) / 2. `conformal_offset`
  // widens (or, negative, narrows) it by that many units of ln(price) on both sides, kept within
  // the range; narrowed below nothing, both ends are its geometric middle.
  PriceInterval CentralInterval(double coverage, double conformal_offset = 0.0) const;
  // Mass within `share` of `price`, both ends included, by default the 20 % that hit rates use.
  double Confidence(double price, double share = 0.2) const;
  // Continuous ranked probability score of the truth, exact: the integral over price x of
  // (Cdf(x) - [x >= truth])^2.
  double Crps(double truth) const;

 private:
  // Where bins are, which distributions of one adapter share.
  struct Bins {
    double min_price = 0;
    double max_price = 0;
    double width = 0;             // in ln(price)
    std::vector<double> starts;   // prices
    std::vector<double> offsets;  // ln(start / min_price): keeps the digits that narrow bins need
  };
  struct Masses {
    std::vector<double> probabilities;
    std::vector<double> cumulative;  // bin_count() + 1, from 0 to 1
  };

  PriceDistribution(std::shared_ptr<const Bins> bins, std::vector<double> masses);
  static std::shared_ptr<const Bins> BinsOver(double min_price, double max_price, int count);
  static std::shared_ptr<const Bins> BinsOfWholePrices(int count);
  // With their partial sums.
  static std::shared_ptr<const Masses> Normalised(std::vector<double> masses);

  // The price at that share, 0 to 1, of a bin's width.
  double PriceAt(size_t bin, double share) const;
  bool IsOfWholePrices() const { return bins_->width == 0.0; }

  std::shared_ptr<const Bins> bins_;
  std::shared_ptr<const Masses> masses_;
};

}  // namespace pricer
