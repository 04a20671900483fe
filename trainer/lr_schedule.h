#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace pricer {

// Linear warm-up, then half a cosine down to zero, a line down to zero, or no change. Update k,
// counted from 0, uses base rate * Factor(k), so with warm-up the first update has rate 0. The
// schedules of transformers' get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup and
// get_constant_schedule_with_warmup.
struct LrSchedule {
  enum class Kind { kCosine, kLinear, kConstant };

  int64_t total_steps = 1;
  int64_t warmup_steps = 0;
  Kind kind = Kind::kCosine;

  // warmup_steps = ceil(ratio * total_steps). REQUIRES: total_steps >= 1, 0 <= ratio < 1.
  static LrSchedule WithWarmupRatio(int64_t total_steps, double ratio, Kind kind = Kind::kCosine);

  // In [0, 1]; 0 from total_steps on, but for a constant one.
  double Factor(int64_t step) const;
};

// "cosine", "linear" or "constant".
absl::StatusOr<LrSchedule::Kind> ParseLrScheduleKind(absl::string_view text);

}  // namespace pricer
