#pragma once

#include <cstdint>
#include <optional>

#include "absl/strings/string_view.h"

namespace pricer {

// Main memory of a process; what the system does not tell is absent.
struct MemoryUsage {
  std::optional<int64_t> resident_bytes;       // now
  std::optional<int64_t> peak_resident_bytes;  // since the process began
};

// From the text of a /proc/<pid>/status: its VmRSS and VmHWM.
MemoryUsage ParseMemoryUsage(absl::string_view status);

// Of this process, from /proc/self/status.
MemoryUsage ReadMemoryUsage();

}  // namespace pricer
