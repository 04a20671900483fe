#pragma once

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace pricer {

// "250ms", "30s", "5m" to a duration from 0 to a year. InvalidArgument names the text.
absl::StatusOr<absl::Duration> ParseDuration(absl::string_view text);

}  // namespace pricer
