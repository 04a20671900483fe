#include "trainer/memory_usage.h"

#include <limits>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/file.h"

namespace pricer {
namespace {

// "   123456 kB"; the kernel's kB are 1,024 bytes.
std::optional<int64_t> ParseKibibytes(absl::string_view text) {
  constexpr int64_t kMax = std::numeric_limits<int64_t>::max() / 1024;
  int64_t kibibytes = 0;
  if (!absl::ConsumeSuffix(&text, " kB") || !absl::SimpleAtoi(text, &kibibytes)) {
    return std::nullopt;
  }
  if (kibibytes < 0 || kibibytes > kMax) return std::nullopt;
  return kibibytes * 1024;
}

}  // namespace

MemoryUsage ParseMemoryUsage(absl::string_view status) {
  MemoryUsage usage;
  for (absl::string_view line : absl::StrSplit(status, '\n')) {
    if (absl::ConsumePrefix(&line, "VmRSS:")) usage.resident_bytes = ParseKibibytes(line);
    if (absl::ConsumePrefix(&line, "VmHWM:")) usage.peak_resident_bytes = ParseKibibytes(line);
  }
  return usage;
}

MemoryUsage ReadMemoryUsage() {
  // Systems without the file are those that do not tell.
  const auto status = ReadFile("/proc/self/status");
  return status.ok() ? ParseMemoryUsage(*status) : MemoryUsage();
}

}  // namespace pricer
