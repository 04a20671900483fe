#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace pricer {

// "250ms", "30s", "5m" to a duration from 0 to a year. InvalidArgument names the text.
absl::StatusOr<absl::Duration> ParseDuration(absl::string_view text);

// "64KiB", "512MiB", "1.5GiB" to bytes, from 1 to 2^50. InvalidArgument names the text.
absl::StatusOr<int64_t> ParseBytes(absl::string_view text);
// To read: "12 bytes", "1.5 KiB", "3.2 MiB", "2.0 GiB".
std::string BytesText(int64_t bytes);

}  // namespace pricer
