#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

// The bins head's arithmetic: which bins, and what to train towards. Histogram loss with Gaussian
// smoothing (HL-Gauss), arXiv 2403.03950, section 3.1, in ln(price). No torch.

namespace pricer {

inline constexpr int kDefaultBinCount = 128;
inline constexpr double kDefaultSigmaBins = 0.75;

// K bins of equal width in ln(price) over [min_price, max_price].
struct BinsSpec {
  int bins = kDefaultBinCount;
  double min_price = 0;
  double max_price = 0;
  // Width of the target's Gaussian in bin widths.
  double sigma = kDefaultSigmaBins;

  // bins >= 2, 0 < min < max, finite, sigma > 0; InvalidArgument names the field.
  absl::Status Validate() const;

  // The range of a head trained on `prices`: their 0.1 % and 99.9 % quantiles (linear interpolation
  // between order statistics), widened on both sides by 10 % of their distance in ln(price).
  // Quantiles within a millionth count as a single price, which is widened by 10 % of itself.
  // InvalidArgument where there is no price, or one that is not positive and finite.
  static absl::StatusOr<BinsSpec> FromPrices(absl::Span<const double> prices,
                                             int bins = kDefaultBinCount,
                                             double sigma = kDefaultSigmaBins);

  // [bins] probabilities: a Gaussian in ln(price) around the truth, integrated over each bin and
  // renormalised. A truth outside the range is clamped to the middle of the end bin. REQUIRES:
  // Validate() is OK.
  std::vector<float> Target(double price) const;
};

}  // namespace pricer
