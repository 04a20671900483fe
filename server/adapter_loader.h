#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "server/adapter_memory.h"
#include "server/batch_scheduler.h"
#include "server/engine.h"
#include "server/golden_checker.h"
#include "server/loaded_adapter.h"

namespace pricer {

// Loads an adapter version and has it price its golden items before any request may get it; a plain
// version has none, and a warning says so.
class AdapterLoader {
 public:
  // All must outlive the loader.
  AdapterLoader(const Engine* engine, BatchScheduler* scheduler, AdapterMemory* memory);

  // Blocks; the version is in the adapter memory then. FailedPrecondition names the golden item
  // whose price is not what the manifest says; ResourceExhausted for a version larger than the
  // memory; Cancelled after Cancel or where the scheduler stops; otherwise the engine's error.
  absl::StatusOr<AdapterHandle> Load(const std::string& directory);

  // Reads the tensors of a version again that was loaded from there. DataLoss where it is no longer
  // the same.
  absl::StatusOr<TensorsHandle> ReadAgain(const LoadedAdapter& adapter,
                                          const std::string& directory) const;

  // Makes the load that runs, and all later ones, return soon. Thread-safe.
  void Cancel() { golden_.Cancel(); }

 private:
  const Engine* const engine_;
  AdapterMemory* const memory_;
  GoldenChecker golden_;
};

}  // namespace pricer
