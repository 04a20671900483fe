#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "catalog/synthetic_truth.h"

namespace pricer {

// Standard deviation of the noise in ln(price).
inline constexpr double kSyntheticNoiseSigma = 0.12;

struct SyntheticCatalogOptions {
  int64_t items = 0;
  uint64_t seed = 0;
  // Made if it is not there.
  std::string output;

  // 10 to 10,000,000 items, an output.
  absl::Status Validate() const;
};

struct SyntheticCatalogSummary {
  SyntheticTruth truth;
  // Of all items.
  double min_price = 0;
  double median_price = 0;
  double max_price = 0;
};

// Writes a synthetic retail catalogue into the output directory: train.jsonl (about 80 %),
// validation.jsonl and test.jsonl (a tenth each, rounded down) as ItemReader reads them, and
// truth.json. Items are drawn independently and split in the order in which they were drawn; no two
// have the same text. Prices follow SyntheticLogPrice plus normal noise. The same items and seed
// give the same bytes. Files of these names are replaced, each at once, when all items are made.
// Cancelled, with nothing changed, as soon as `stop` says true; it is asked between items and may
// be empty.
absl::StatusOr<SyntheticCatalogSummary> WriteSyntheticCatalog(
    const SyntheticCatalogOptions& options, const std::function<bool()>& stop = nullptr);

}  // namespace pricer
