#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "model/price_distribution.h"
#include "model/price_head.h"

// What is fitted on held-out items after tuning. Pure arithmetic.

namespace pricer {

// Bin logits of one held-out item, and its price.
struct HeldOutItem {
  std::vector<float> logits;  // [bins]
  double price = 0;
};

// The temperature in [0.25, 4] with the least mean negative log-likelihood of the bins that hold
// the prices (Guo et al., arXiv 1706.04599). The likelihood is convex in 1 / temperature, so a
// golden-section search finds it; it stops within 0.1 %. REQUIRES: not empty, finite logits.
double FitTemperature(const BinsSpec& bins, absl::Span<const HeldOutItem> items);

// Mean negative log-likelihood of the bins that hold the prices, in nats.
double NegativeLogLikelihood(const BinsSpec& bins, absl::Span<const HeldOutItem> items,
                             double temperature);

// How far, in ln(price), a central interval of `coverage` has to be widened on both sides so that
// it holds a new price with at least that probability: conformalized quantile regression (Romano et
// al., arXiv 1905.03222). The ceil((n + 1) coverage)-th smallest of the held-out items' distances
// to their intervals. Absent from the result where there are too few items for a coverage. Keys are
// coverages as text ("0.8").
std::map<std::string, double> FitConformal(absl::Span<const PriceDistribution> distributions,
                                           absl::Span<const double> prices,
                                           absl::Span<const double> coverages);

}  // namespace pricer
