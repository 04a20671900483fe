#include "trainer/lr_schedule.h"

#include <cmath>
#include <numbers>

namespace pricer {

LrSchedule LrSchedule::WithWarmupRatio(int64_t total_steps, double ratio) {
  LrSchedule schedule;
  schedule.total_steps = total_steps;
  schedule.warmup_steps = static_cast<int64_t>(std::ceil(ratio * static_cast<double>(total_steps)));
  return schedule;
}

double LrSchedule::Factor(int64_t step) const {
  if (step < warmup_steps) return static_cast<double>(step) / static_cast<double>(warmup_steps);
  if (step >= total_steps) return 0.0;
  const double progress =
      static_cast<double>(step - warmup_steps) / static_cast<double>(total_steps - warmup_steps);
  return 0.5 * (1.0 + std::cos(std::numbers::pi * progress));
}

}  // namespace pricer
