#pragma once

#include <cstddef>
#include <memory>
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

// Prices the golden items of adapter versions through the batch scheduler, ahead of callers' items
// and one at a time, so that a check never makes a batch longer by more than one item nor waits for
// more than one batch an item. Thread-safe; all checks block.
class GoldenChecker {
 public:
  // Both must outlive the checker.
  GoldenChecker(const Engine* engine, BatchScheduler* scheduler)
      : engine_(engine), scheduler_(scheduler) {}

  // Whether the version prices its golden items as its manifest says; FailedPrecondition names the
  // item that it does not. OK where it has none. `tensors` of a version that the adapter memory has
  // not taken up; null = it has.
  absl::Status Check(const AdapterHandle& adapter, const TensorsHandle& tensors = nullptr);

  // The same of one item. REQUIRES: there is such an item.
  absl::Status CheckItem(const AdapterHandle& adapter, size_t index,
                         const TensorsHandle& tensors = nullptr);

  // How far `adapter` is from `current` on its own golden items: the mean of |ln(price / price)| of
  // the medians. FailedPrecondition where it has none, or another currency.
  absl::StatusOr<double> MeanShift(const AdapterHandle& adapter, const AdapterHandle& current);

  // Makes the checks that run, and all later ones, return Cancelled soon.
  void Cancel();

 private:
  // Shared with tasks that may outlive a cancelled check.
  struct State {
    Mutex mutex;
    CondVar changed;
    bool cancelled ABSL_GUARDED_BY(mutex) = false;
  };

  absl::StatusOr<PriceDistribution> Price(const AdapterHandle& adapter,
                                          const TensorsHandle& tensors, const std::string& item);
  // Price, whose errors name the golden item.
  absl::StatusOr<PriceDistribution> PriceGolden(const AdapterHandle& adapter,
                                                const TensorsHandle& tensors,
                                                const AdapterHandle& of, size_t index);

  const Engine* const engine_;
  BatchScheduler* const scheduler_;
  const std::shared_ptr<State> state_ = std::make_shared<State>();
};

// Whether an adapter was tuned on other weights or in another dtype than the engine's, in words for
// a warning; empty = it was not.
std::string ForeignWarning(const Manifest& manifest, const EngineInfo& info);

}  // namespace pricer
