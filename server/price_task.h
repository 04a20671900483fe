#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "model/price_distribution.h"
#include "server/lane.h"
#include "server/loaded_adapter.h"

namespace pricer {

struct TaskResult {
  // DeadlineExceeded or Cancelled: never computed. Unavailable: the scheduler stopped first.
  absl::StatusOr<PriceDistribution> distribution;
  // From Schedule to the start of its batch.
  absl::Duration queue_time;
  // Of the whole batch; zero where the task was not computed.
  absl::Duration compute_time;
};

// Those who wait for one task. Thread-safe.
class TaskWaiters {
 public:
  virtual ~TaskWaiters() = default;
  // Whether none of them waits any more.
  virtual bool gone() const = 0;
  // When the last of them stops waiting.
  virtual absl::Time deadline() const = 0;
};

// The item of a task as another version is asked for it.
struct ShadowPrompt {
  std::vector<int32_t> ids;  // not empty
  AdapterHandle adapter;     // not null
  TensorsHandle tensors;     // as PriceTask's
  int64_t extra_rows = 0;    // as PriceTask's
};

// One tokenized prompt to price.
struct PriceTask {
  std::vector<int32_t> ids;  // not empty
  AdapterHandle adapter;     // not null
  // What it is computed with. The scheduler takes them from the adapter memory, and the task waits
  // until they are there, unless whoever schedules it brings them along.
  TensorsHandle tensors;
  // What it is expected to cost beside the prompt, in rows of the forward pass, which count as
  // tokens wherever tokens are limited: LoadedAdapter::extra_rows().
  int64_t extra_rows = 0;
  // Computed in the same batch and compared; what becomes of it does not touch the task.
  std::optional<ShadowPrompt> shadow;
  Lane lane = Lane::kOnline;
  // Whose share and quota it counts towards.
  std::string caller;
  absl::Time deadline = absl::InfiniteFuture();
  // Set by the caller when nobody waits any more; null = that cannot happen.
  std::shared_ptr<const std::atomic<bool>> cancelled;
  // Where several wait: they decide, instead of `cancelled`, when the task is dropped, and so does
  // their deadline. Its place in the queue is by its own.
  std::shared_ptr<const TaskWaiters> waiters;
  // The server's own work, such as golden items, of which there are few at a time: taken though the
  // queue is full, ahead of callers' tasks, and not counted as an item priced.
  bool internal = false;
  // Follows an earlier task of its call that has left the queue: taken though the queue is full.
  bool replaces = false;
  // False = others follow at once, and then BatchScheduler::Wake, or the task is handed over in the
  // `done` of another, which is followed by one: an idle batch thread is not woken for it alone.
  bool wake = true;
  // Called exactly once where Schedule returned OK, on the thread that tells what became of a
  // batch, mostly: it must not block.
  std::function<void(TaskResult)> done;

  int64_t tokens() const {
    const int64_t own = static_cast<int64_t>(ids.size()) + extra_rows;
    if (!shadow.has_value()) return own;
    return own + static_cast<int64_t>(shadow->ids.size()) + shadow->extra_rows;
  }
  bool gone() const {
    if (waiters != nullptr) return waiters->gone();
    return cancelled != nullptr && cancelled->load(std::memory_order_relaxed);
  }
  // When nobody waits any more.
  absl::Time needed_by() const { return waiters != nullptr ? waiters->deadline() : deadline; }
  bool expired(absl::Time now) const { return needed_by() <= now; }
};

}  // namespace pricer
