#include "base/units.h"

#include "absl/strings/str_cat.h"

namespace pricer {

absl::StatusOr<absl::Duration> ParseDuration(absl::string_view text) {
  absl::Duration duration;
  if (!absl::ParseDuration(text, &duration) || duration < absl::ZeroDuration()) {
    return absl::InvalidArgumentError(
        absl::StrCat("expected a duration such as 250ms, 30s or 5m, got \"", text, "\""));
  }
  return duration;
}

}  // namespace pricer
