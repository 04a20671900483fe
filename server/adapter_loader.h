#pragma once

#include <memory>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "server/batch_scheduler.h"
#include "server/engine.h"
#include "server/loaded_adapter.h"

namespace pricer {

// Golden items may differ by this share where the adapter was tuned on other weights or in another
// dtype. What is tolerated of a price is tolerated of the mass that whole prices are read from too.
inline constexpr double kForeignGoldenTolerance = 0.03;

// Loads an adapter version and has it price its golden items before any request may get it; a plain
// version has none, and a warning says so. The items go through the batch scheduler, ahead of
// callers' and one at a time, so that a check never makes a batch longer by more than one item nor
// waits for more than one batch an item.
class AdapterLoader {
 public:
  // Both must outlive the loader.
  AdapterLoader(const Engine* engine, BatchScheduler* scheduler);

  // Blocks. FailedPrecondition names the golden item whose price is not what the manifest says;
  // Cancelled after Cancel or where the scheduler stops; otherwise the engine's error. One caller
  // at a time.
  absl::StatusOr<AdapterHandle> Load(const std::string& directory);

  // Makes the load that runs, and all later ones, return soon. Thread-safe.
  void Cancel();

 private:
  // Shared with tasks that may outlive a cancelled load.
  struct Wait {
    Mutex mutex;
    CondVar changed;
    bool cancelled ABSL_GUARDED_BY(mutex) = false;
    std::optional<TaskResult> result ABSL_GUARDED_BY(mutex);
  };

  absl::Status CheckGoldenItems(const AdapterHandle& adapter, double tolerance);
  absl::StatusOr<PriceDistribution> Price(const AdapterHandle& adapter, const std::string& item);

  const Engine* const engine_;
  BatchScheduler* const scheduler_;
  const std::shared_ptr<Wait> wait_ = std::make_shared<Wait>();
};

}  // namespace pricer
