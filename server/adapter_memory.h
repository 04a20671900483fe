#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "server/loaded_adapter.h"
#include "server/metrics.h"

namespace pricer {

struct AdapterMemoryOptions {
  // Most bytes of adapters' tensors in host memory. More keeps more of them from being read again;
  // versions beyond it stay available and are read when they are asked for.
  int64_t host_bytes = int64_t{4} << 30;
  // The same of the device's memory, where the engine computes on a device of its own.
  int64_t device_bytes = int64_t{4} << 30;

  absl::Status Validate() const;
};

// Where tensors come from. Both are called on one thread of the memory's own, and may take long.
struct AdapterTensorSource {
  // Reads a version's files again; an error where they are no longer what the version was.
  std::function<absl::StatusOr<TensorsHandle>(const LoadedAdapter& adapter)> read;
  // From host memory to where batches are computed; null = they are computed in host memory.
  std::function<absl::StatusOr<TensorsHandle>(const LoadedAdapter& adapter,
                                              const TensorsHandle& host)>
      copy_to_device;
};

// Bytes that a version takes of each kind of memory, by MemoryTier.
using TierBytes = std::array<int64_t, kMemoryTierCount>;

struct AdapterPlace {
  // The fastest memory that has its tensors; kDisk = none has.
  MemoryTier tier = MemoryTier::kHost;
  bool pinned = false;
  // Why it could not be fetched lately; empty = it could.
  std::string error;
};

// Which adapters' tensors are in memory. Thread-safe.
//
// 1. Each kind of memory is bounded in bytes. Beyond the bound there is at most what is just being
//    read: a version's size is known once it was read.
// 2. Room is made by those used longest ago, pinned ones never, and those whose files are gone only
//    where no others can: nothing brings them back. One that a task in the queue or in a batch
//    holds is first let finish: from then on it takes no new tasks, so that every fetch gets its
//    room, however busy the others are.
// 3. Fetches run one after the other in the order in which they were asked for. One that fails is
//    not tried again for kRetryDelay; tasks that come meanwhile fail with its error.
// 4. What a task holds stays in memory until it lets go, whatever becomes of the version.
class AdapterMemory {
 public:
  static constexpr absl::Duration kRetryDelay = absl::Seconds(1);

  // Hears on the memory's thread that a version can be had now, or why it cannot.
  using Listener = std::function<void(const LoadedAdapter* adapter, const absl::Status& status)>;

  // `metrics` and `clock` must outlive the memory.
  AdapterMemory(const AdapterMemoryOptions& options, AdapterTensorSource source, Metrics* metrics,
                const Clock* clock);
  // Stop().
  ~AdapterMemory();
  AdapterMemory(const AdapterMemory&) = delete;
  AdapterMemory& operator=(const AdapterMemory&) = delete;

  // ResourceExhausted where a version of so many bytes can never be held; names the bound.
  absl::Status CheckFits(int64_t bytes) const;

  // Takes up a version that was just read; `device` is null where batches are computed in host
  // memory. What finds no room but by those in use is left on disk.
  void Add(const AdapterHandle& adapter, TensorsHandle host, TensorsHandle device);

  // Forgets a version; returns what it took. REQUIRES: nobody asks for it any more.
  TierBytes Remove(const LoadedAdapter* adapter);

  // The tensors to compute with. Null = they are being fetched, and the listener will hear; an
  // error = they could not be, lately. REQUIRES: the adapter was added, and not removed.
  absl::StatusOr<TensorsHandle> Get(const AdapterHandle& adapter);

  // Waits until the tensors can be had, at most until `deadline`. Tries at once, whatever failed
  // before.
  absl::Status Fetch(const AdapterHandle& adapter, absl::Time deadline);

  // A pinned version is fetched, and then stays where batches are computed. ResourceExhausted where
  // pinned ones would need more than there is.
  absl::Status SetPinned(const AdapterHandle& adapter, bool pinned);

  // Its files are gone, so that it cannot be read again.
  void SetGone(const AdapterHandle& adapter);

  AdapterPlace PlaceOf(const LoadedAdapter* adapter) const;

  // One listener; null ends it, after a call that runs has returned. It may call Get. What waits
  // when the memory is stopped is not told.
  void SetListener(Listener listener);

  // Tasks have let go of tensors: whoever waits for room looks again. Cheap where nobody does.
  void Released();

  // From now on nothing can be had, and whoever waits in Fetch is told so: Unavailable.
  void RequestStop();

  // RequestStop, and waits for the thread. False where `deadline` passed first: a
  // read has not returned. One caller.
  bool Stop(absl::Time deadline = absl::InfiniteFuture());

 private:
  struct Slot {
    std::weak_ptr<const LoadedAdapter> adapter;
    int64_t bytes = 0;
    bool pinned = false;
    bool gone = false;
    bool wanted = false;   // is in wanted_
    bool closing = false;  // takes no new tasks, to make room
    bool removed = false;
    absl::Status failure;
    absl::Time retry_at = absl::InfinitePast();
    std::array<TensorsHandle, kMemoryTierCount> tensors;
    std::array<std::list<Slot*>::iterator, kMemoryTierCount> used;  // where tensors are
  };
  struct Tier {
    MemoryTier tier = MemoryTier::kHost;
    int64_t limit = 0;
    int64_t bytes = 0;
    int64_t reserved = 0;   // bytes of what is being fetched
    std::list<Slot*> used;  // the longest ago first

    int64_t Excess(int64_t more) const { return bytes + reserved + more - limit; }
  };

  Tier& TierOf(MemoryTier tier) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return tiers_[static_cast<int>(tier)];
  }
  void Put(MemoryTier tier, Slot* slot, TensorsHandle tensors)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Into `freed_`, to be freed without the lock.
  void Drop(MemoryTier tier, Slot* slot) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Touch(MemoryTier tier, Slot* slot) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Whether room can be made by this one; `spare_gone`: not by what is gone.
  bool MayMakeRoom(MemoryTier tier, const Slot& slot, bool spare_gone) const;
  // Whether all that may make room would do, whoever holds it.
  bool WouldDo(MemoryTier tier, int64_t bytes, bool spare_gone)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // By what nobody holds; false = there is not enough of it.
  bool MakeRoom(MemoryTier tier, int64_t bytes, bool spare_gone)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Has those in use take no new tasks, as many as are needed.
  void CloseForRoom(MemoryTier tier, int64_t bytes, bool spare_gone)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ReopenAll() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Want(const std::shared_ptr<Slot>& slot) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Report(MemoryTier tier) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool has_device() const { return source_.copy_to_device != nullptr; }

  void Run();
  // Both unlock while they read or wait.
  absl::Status FetchNow(const LoadedAdapter& adapter, Slot* slot)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status WaitForRoom(MemoryTier tier, int64_t bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Makes room in a tier and fills it with what `bring` gives, unless the slot is removed
  // meanwhile.
  absl::Status Bring(MemoryTier tier, Slot* slot,
                     const std::function<absl::StatusOr<TensorsHandle>()>& bring)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Tell(const LoadedAdapter* adapter, const absl::Status& status);
  void FreeDropped();

  const AdapterMemoryOptions options_;
  const AdapterTensorSource source_;
  Metrics* const metrics_;
  const Clock* const clock_;
  // Where batches are computed.
  const MemoryTier compute_;

  // Held while the listener is called. Before mutex_, and before the listener's own.
  Mutex listener_mutex_;
  Listener listener_ ABSL_GUARDED_BY(listener_mutex_);

  mutable Mutex mutex_;
  CondVar wake_;     // work for the thread, or room
  CondVar fetched_;  // a fetch has ended, or the thread
  std::array<Tier, kMemoryTierCount> tiers_ ABSL_GUARDED_BY(mutex_);
  std::unordered_map<const LoadedAdapter*, std::shared_ptr<Slot>> slots_ ABSL_GUARDED_BY(mutex_);
  std::deque<std::shared_ptr<Slot>> wanted_ ABSL_GUARDED_BY(mutex_);
  std::vector<TensorsHandle> freed_ ABSL_GUARDED_BY(mutex_);
  bool waiting_for_room_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool running_ ABSL_GUARDED_BY(mutex_) = true;

  // Last, so that it starts when all else is made.
  std::thread thread_;
};

}  // namespace pricer
