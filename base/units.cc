#include "base/units.h"

#include "absl/strings/str_cat.h"

namespace pricer {
namespace {

// Far beyond any sensible one; added to a point in time it is still a point in time.
constexpr absl::Duration kLongestDuration = absl::Hours(24 * 365);

}  // namespace

absl::StatusOr<absl::Duration> ParseDuration(absl::string_view text) {
  absl::Duration duration;
  if (!absl::ParseDuration(text, &duration) || duration < absl::ZeroDuration() ||
      duration > kLongestDuration) {
    return absl::InvalidArgumentError(absl::StrCat(
        "expected a duration such as 250ms, 30s or 5m, at most a year, got \"", text, "\""));
  }
  return duration;
}

}  // namespace pricer
