#include "base/units.h"

#include <array>
#include <cmath>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"

namespace pricer {
namespace {

// Far beyond any sensible one; added to a point in time it is still a point in time.
constexpr absl::Duration kLongestDuration = absl::Hours(24 * 365);
constexpr double kMostBytes = 0x1p50;

struct ByteUnit {
  absl::string_view name;
  double bytes;
};
constexpr std::array<ByteUnit, 3> kByteUnits = {
    {{"GiB", 0x1p30}, {"MiB", 0x1p20}, {"KiB", 0x1p10}}};

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

absl::StatusOr<int64_t> ParseBytes(absl::string_view text) {
  for (const ByteUnit& unit : kByteUnits) {
    absl::string_view number = text;
    double count = 0;
    if (!absl::ConsumeSuffix(&number, unit.name) || !absl::SimpleAtod(number, &count)) continue;
    const double bytes = std::floor(count * unit.bytes);
    if (bytes >= 1 && bytes <= kMostBytes) return static_cast<int64_t>(bytes);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("expected a size such as 64KiB, 512MiB or 5GiB, got \"", text, "\""));
}

std::string BytesText(int64_t bytes) {
  for (const ByteUnit& unit : kByteUnits) {
    const double count = static_cast<double>(bytes) / unit.bytes;
    if (count >= 1) return absl::StrFormat("%.1f %s", count, unit.name);
  }
  return absl::StrCat(bytes, " bytes");
}

}  // namespace pricer
