#pragma once

#include <array>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "server/lane.h"
#include "server/loaded_adapter.h"

namespace pricer {

// Life of an adapter version. Transitions go down the list; a version that is refused goes from
// kLoading to kEnd, and one that is loaded again begins anew at kStart.
enum class AdapterState { kStart, kLoading, kAvailable, kUnloading, kEnd };
inline constexpr int kAdapterStateCount = 5;

// "start", "loading", ...
absl::string_view AdapterStateName(AdapterState state);

// Why the queue did not take a task; the `reason` label of pricer_admission_refused_total.
enum class RefusalReason { kQueueFull, kQuota, kTooLate, kExpired, kStopping, kAdapter };
inline constexpr int kRefusalReasonCount = 6;

// Why a task that the queue had taken was never computed; the `reason` label of
// pricer_items_dropped_total.
enum class DropReason { kExpired, kTooLate, kCancelled, kStopping, kAdapter };
inline constexpr int kDropReasonCount = 5;

// What the server tells about itself. This base class keeps nothing; PrometheusMetrics exports it
// all. Implementations are thread-safe and quick: some calls are made under a lock.
class Metrics {
 public:
  virtual ~Metrics() = default;

  // A call ended, so long after its handler was entered. `method` is "PredictPrice" or the like: a
  // name of the protocol, never of a caller's choosing.
  virtual void CallEnded(absl::string_view /*method*/, absl::StatusCode /*code*/,
                         absl::Duration /*time*/) {}
  // So many items were priced for callers. REQUIRES: a handle of the adapter is held.
  virtual void ItemsPriced(Lane /*lane*/, const AdapterKey& /*adapter*/, int64_t /*count*/) {}
  virtual void BatchComputed(int64_t /*items*/, int64_t /*tokens*/, absl::Duration /*compute*/) {}
  // Before a batch, the predictor was free so long though a task of it waited.
  virtual void BatchFollowed(absl::Duration /*gap*/) {}
  // A task left the queue for a batch after this long.
  virtual void TaskWaited(Lane /*lane*/, absl::Duration /*queue*/) {}
  // What waits in a lane, and in all of the queue.
  virtual void QueueChanged(Lane /*lane*/, int64_t /*tokens*/) {}
  virtual void QueueItemsChanged(int64_t /*items*/) {}
  // An item was found computed, or being computed for another caller.
  virtual void CacheHit() {}
  virtual void Coalesced() {}
  // Bytes of the distributions that are kept.
  virtual void CacheChanged(int64_t /*bytes*/) {}
  virtual void AdmissionRefused(RefusalReason /*reason*/) {}
  virtual void TaskDropped(DropReason /*reason*/) {}
  // So many tasks of a batch were computed and done after their deadlines.
  virtual void TasksLate(int64_t /*count*/) {}
  // How many versions are in each state now.
  virtual void AdapterStatesChanged(const std::array<int64_t, kAdapterStateCount>& /*counts*/) {}
  virtual void AdapterLoaded(absl::Duration /*load*/) {}
  virtual void AdapterLoadFailed(absl::Time /*when*/) {}
  // Nobody holds this version any more.
  virtual void AdapterEnded(const AdapterKey& /*adapter*/) {}
  // Nobody holds it any more, this long after it was unloaded.
  virtual void AdapterUnloaded(absl::Duration /*unload*/) {}
  // What a kind of memory holds now.
  virtual void AdapterMemoryChanged(MemoryTier /*tier*/, int64_t /*adapters*/, int64_t /*bytes*/) {}
  // Tensors were brought from where they were to the next faster memory, or could not be.
  virtual void AdapterFetched(MemoryTier /*from*/, absl::Duration /*time*/, bool /*ok*/) {}
  // Tensors made room for others.
  virtual void AdapterEvicted(MemoryTier /*tier*/, int64_t /*bytes*/) {}
  virtual void AdapterRootReadable(bool /*readable*/) {}
  // The server's certificate, or one behind it, ends then.
  virtual void CertificateExpires(absl::Time /*when*/) {}
  // Whether readiness says yes.
  virtual void ReadyChanged(bool /*ready*/) {}
  // A label leads to another version than before.
  virtual void LabelMoved(absl::string_view /*label*/) {}
  // The same item under a version and under its shadow: ln(shadow's median / the version's).
  // REQUIRES: a handle of the shadow is held.
  virtual void ShadowCompared(const AdapterKey& /*shadow*/, double /*log_ratio*/) {}
  // What an item of a version sold for: ln(true price / predicted).
  virtual void OutcomeReported(const AdapterKey& /*adapter*/, double /*log_error*/) {}
  // Whether the true price lay in the interval of kDefaultIntervalCoverage.
  virtual void IntervalReported(const AdapterKey& /*adapter*/, bool /*covered*/) {}
  // The shadow gave no price for an item that was priced.
  virtual void ShadowFailed() {}
};

}  // namespace pricer
