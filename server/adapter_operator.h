#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/adapter_memory.h"
#include "server/adapter_registry.h"
#include "server/adapter_watcher.h"

namespace pricer {

struct UnloadResult {
  TierBytes freed{};
  // Requests still hold it.
  bool in_use = false;
};

// What operators do to versions of one server, and who did it in the log. The adapter folder stays
// as it is, and so do other servers. Thread-safe; all calls block, at most until their deadline,
// and `by` says who asks.
class AdapterOperator {
 public:
  // All must outlive the operator.
  AdapterOperator(AdapterRegistry* registry, AdapterWatcher* watcher, AdapterMemory* memory)
      : registry_(registry), watcher_(watcher), memory_(memory) {}

  // The version is available and in memory then; version 0 = the newest in the folder.
  // InvalidArgument for what cannot be an adapter; otherwise AdapterWatcher::Load's errors and
  // AdapterMemory::Fetch's.
  absl::StatusOr<AdapterStatus> Load(const AdapterKey& key, const std::string& by,
                                     absl::Time deadline);

  // FailedPrecondition where it is not available, or names a label that leads to it.
  absl::StatusOr<UnloadResult> Unload(const AdapterKey& key, const std::string& by,
                                      absl::Time deadline);

  // Every available version of a name; NotFound where there is none. Labels do not keep them.
  absl::Status UnloadAll(const std::string& name, const std::string& by, absl::Time deadline);

  // A version that is pinned is in memory then. The registry's error where it is not available;
  // otherwise AdapterMemory::SetPinned's and Fetch's, after which it is as it was.
  absl::StatusOr<AdapterStatus> SetPinned(const AdapterKey& key, bool pinned, const std::string& by,
                                          absl::Time deadline);

 private:
  absl::StatusOr<AdapterStatus> StatusOf(const AdapterKey& key) const;
  absl::StatusOr<UnloadResult> UnloadNow(const AdapterKey& key, const std::string& by,
                                         absl::Time deadline);

  AdapterRegistry* const registry_;
  AdapterWatcher* const watcher_;
  AdapterMemory* const memory_;
};

}  // namespace pricer
