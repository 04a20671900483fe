#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "model/manifest.h"
#include "trainer/dataset.h"

// What a manifest says about prices beyond the tensors, from the held-out items' scores. No torch.

namespace pricer {

inline constexpr int64_t kMinGoldenItems = 8;
inline constexpr int64_t kGoldenItems = 16;

// Fills in temperature, conformal offsets (for coverages 0.5, 0.8, 0.9 and 0.95 as far as the items
// suffice), evaluation and golden items. `scores` are [items][bins or whole prices] of
// `validation`, which keeps its texts; manifest->head and bins are set. A token head keeps the
// temperature 1. `training_median` becomes evaluation["training_median"]. Coverage is no part of
// the evaluation: these are the items that the intervals were fitted on. FailedPrecondition with
// fewer than kMinGoldenItems items; Internal where a logit is not finite.
absl::Status Calibrate(const Dataset& validation, absl::Span<const std::vector<float>> scores,
                       double training_median, Manifest* manifest);

}  // namespace pricer
