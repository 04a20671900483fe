#pragma once

#include <cstdint>

namespace pricer {

// Linear warm-up, then half a cosine down to zero. Update k, counted from 0, uses base rate *
// Factor(k), so with warm-up the first update has rate 0. The schedule of transformers'
// get_cosine_schedule_with_warmup.
struct LrSchedule {
  int64_t total_steps = 1;
  int64_t warmup_steps = 0;

  // warmup_steps = ceil(ratio * total_steps). REQUIRES: total_steps >= 1, 0 <= ratio < 1.
  static LrSchedule WithWarmupRatio(int64_t total_steps, double ratio);

  // In [0, 1]; 0 from total_steps on.
  double Factor(int64_t step) const;
};

}  // namespace pricer
