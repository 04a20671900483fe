#pragma once

#include "absl/strings/string_view.h"

namespace pricer {

// What is waited for by somebody, and what is done when nothing else is.
enum class Lane { kOnline, kBulk };
inline constexpr int kLaneCount = 2;
inline constexpr Lane kLanes[kLaneCount] = {Lane::kOnline, Lane::kBulk};

inline absl::string_view LaneName(Lane lane) { return lane == Lane::kOnline ? "online" : "bulk"; }

}  // namespace pricer
