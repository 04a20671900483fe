#include "server/metrics.h"

namespace pricer {

absl::string_view MemoryTierName(MemoryTier tier) {
  switch (tier) {
    case MemoryTier::kDisk:
      return "disk";
    case MemoryTier::kHost:
      return "host";
    case MemoryTier::kDevice:
      return "device";
  }
  return "unknown";
}

absl::string_view AdapterStateName(AdapterState state) {
  switch (state) {
    case AdapterState::kStart:
      return "start";
    case AdapterState::kLoading:
      return "loading";
    case AdapterState::kAvailable:
      return "available";
    case AdapterState::kUnloading:
      return "unloading";
    case AdapterState::kEnd:
      return "end";
  }
  return "unknown";
}

}  // namespace pricer
