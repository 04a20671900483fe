#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "base/sha256.h"
#include "server/batch_scheduler.h"
#include "server/metrics.h"
#include "server/price_task.h"

namespace pricer {

// Distributions that were computed, and items that are being computed, so that the same item is
// computed once: by whoever asks first. Its key is the text and the digest of the adapter version,
// which covers base, prompt, calibration and tensors: a price of other weights is never found.
// Thread-safe.
class PriceCache {
 public:
  // What is known of a prompt beside its prices.
  struct PromptFacts {
    int tokens = 0;
    bool truncated = false;
  };
  struct Priced {
    PriceDistribution distribution;
    PromptFacts prompt;
  };
  struct Outcome {
    TaskResult result;
    PromptFacts prompt;
  };
  // SHA-256 of both.
  using Key = Sha256Bytes;
  static Key KeyOf(const LoadedAdapter& adapter, absl::string_view text);

  // Who asks for an item.
  struct Asker {
    Lane lane = Lane::kOnline;
    absl::Time deadline = absl::InfiniteFuture();
    // As PriceTask's.
    std::shared_ptr<const std::atomic<bool>> cancelled;
    // As PriceTask's.
    std::function<void(Outcome)> done;
  };

  // Keeps distributions of at most `max_bytes` in all, those used last; 0 = none. All outlive it.
  PriceCache(int64_t max_bytes, BatchScheduler* scheduler, Metrics* metrics, const Clock* clock);
  // REQUIRES: the scheduler has stopped.
  ~PriceCache();
  PriceCache(const PriceCache&) = delete;
  PriceCache& operator=(const PriceCache&) = delete;

  struct Found {
    // What was computed of the item, where it is still there.
    std::optional<Priced> priced;
    // Whether it is being computed in time for the asker, whose `done` will be called. An online
    // item does not wait for a bulk one.
    bool joined = false;
  };
  // What is known of an item, from before only where it `may_be_kept`. `asker` is as it was unless
  // it joined.
  Found FindOrJoin(const Key& key, bool may_be_kept, Asker* asker);

  // Joins as FindOrJoin, or schedules the task, whose lane, deadline, `cancelled` and `done` are
  // the asker's. Errors are the scheduler's; then both are as they were and `done` is never called.
  absl::Status ScheduleOrJoin(const Key& key, PriceTask&& task, PromptFacts prompt, Asker&& asker);

  int64_t bytes() const;

 private:
  class Flight;
  // Any bytes of a hash are one.
  struct KeyHash {
    size_t operator()(const Key& key) const {
      size_t hash;
      std::memcpy(&hash, key.data(), sizeof(hash));
      return hash;
    }
  };
  struct Entry {
    Key key;
    Priced priced;
  };
  using Entries = std::list<Entry>;

  static int64_t BytesOf(const Entry& entry);
  std::optional<Priced> FindLocked(const Key& key) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool JoinLocked(const Key& key, Asker* asker) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Finish(const Key& key, const std::shared_ptr<Flight>& flight, TaskResult result);
  // Takes the one entry of `kept`, unless there is one; what is given up for it goes to `evicted`.
  void KeepLocked(Entries* kept, Entries* evicted) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const int64_t max_bytes_;
  BatchScheduler* const scheduler_;
  Metrics* const metrics_;
  const Clock* const clock_;

  mutable Mutex mutex_;
  std::unordered_map<Key, std::shared_ptr<Flight>, KeyHash> flights_ ABSL_GUARDED_BY(mutex_);
  Entries entries_ ABSL_GUARDED_BY(mutex_);  // last used first
  std::unordered_map<Key, Entries::iterator, KeyHash> places_ ABSL_GUARDED_BY(mutex_);
  int64_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace pricer
