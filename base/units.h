#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace pricer {

// "512", "64KiB", "16MiB", "2GiB" to bytes. InvalidArgument names the text.
absl::StatusOr<int64_t> ParseBytes(absl::string_view text);

// "250ms", "30s", "5m" to a duration >= 0. InvalidArgument names the text.
absl::StatusOr<absl::Duration> ParseDuration(absl::string_view text);

}  // namespace pricer
