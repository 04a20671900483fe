#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "server/batch_scheduler.h"
#include "server/engine.h"
#include "server/golden_checker.h"
#include "server/loaded_adapter.h"

namespace pricer {

// Loads an adapter version and has it price its golden items before any request may get it; a plain
// version has none, and a warning says so.
class AdapterLoader {
 public:
  // Both must outlive the loader.
  AdapterLoader(const Engine* engine, BatchScheduler* scheduler);

  // Blocks. FailedPrecondition names the golden item whose price is not what the manifest says;
  // Cancelled after Cancel or where the scheduler stops; otherwise the engine's error.
  absl::StatusOr<AdapterHandle> Load(const std::string& directory);

  // Makes the load that runs, and all later ones, return soon. Thread-safe.
  void Cancel() { golden_.Cancel(); }

 private:
  const Engine* const engine_;
  GoldenChecker golden_;
};

}  // namespace pricer
