#include "trainer/lr_schedule.h"

#include <cmath>
#include <numbers>

#include "absl/strings/str_cat.h"

namespace pricer {

LrSchedule LrSchedule::WithWarmupRatio(int64_t total_steps, double ratio, Kind kind) {
  LrSchedule schedule;
  schedule.total_steps = total_steps;
  schedule.warmup_steps = static_cast<int64_t>(std::ceil(ratio * static_cast<double>(total_steps)));
  schedule.kind = kind;
  return schedule;
}

double LrSchedule::Factor(int64_t step) const {
  if (step < warmup_steps) return static_cast<double>(step) / static_cast<double>(warmup_steps);
  if (kind == Kind::kConstant) return 1.0;
  if (step >= total_steps) return 0.0;
  const double progress =
      static_cast<double>(step - warmup_steps) / static_cast<double>(total_steps - warmup_steps);
  if (kind == Kind::kLinear) return 1.0 - progress;
  return 0.5 * (1.0 + std::cos(std::numbers::pi * progress));
}

absl::StatusOr<LrSchedule::Kind> ParseLrScheduleKind(absl::string_view text) {
  if (text == "cosine") return LrSchedule::Kind::kCosine;
  if (text == "linear") return LrSchedule::Kind::kLinear;
  if (text == "constant") return LrSchedule::Kind::kConstant;
  return absl::InvalidArgumentError(
      absl::StrCat("--lr-schedule is ", text, "; expected cosine, linear or constant"));
}

}  // namespace pricer
