#include "server/price_cache.h"

#include <algorithm>
#include <iterator>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace pricer {

// One item that is queued or computed, and all who wait for it.
class PriceCache::Flight : public TaskWaiters {
 public:
  struct Waiter {
    Asker asker;
    absl::Time joined;
  };

  Flight(Lane lane, absl::Time start_by, PromptFacts prompt)
      : lane_(lane), start_by_(start_by), prompt_(prompt) {}

  bool gone() const override {
    MutexLock lock(&mutex_);
    return std::all_of(waiters_.begin(), waiters_.end(), [](const Waiter& waiter) {
      const auto& cancelled = waiter.asker.cancelled;
      return cancelled != nullptr && cancelled->load(std::memory_order_relaxed);
    });
  }
  absl::Time deadline() const override {
    MutexLock lock(&mutex_);
    return latest_deadline_;
  }

  // Whether who asks so would not be served later than by a task of its own.
  bool Suits(const Asker& asker) const {
    if (asker.lane == Lane::kOnline && lane_ == Lane::kBulk) return false;
    return start_by_ <= asker.deadline;
  }

  void Add(Asker asker, absl::Time now) {
    MutexLock lock(&mutex_);
    latest_deadline_ = std::max(latest_deadline_, asker.deadline);
    waiters_.push_back({std::move(asker), now});
  }
  std::vector<Waiter> TakeWaiters() {
    MutexLock lock(&mutex_);
    return std::exchange(waiters_, {});
  }
  const PromptFacts& prompt() const { return prompt_; }

 private:
  const Lane lane_;
  const absl::Time start_by_;  // decides its place in the queue
  const PromptFacts prompt_;
  mutable Mutex mutex_;
  absl::Time latest_deadline_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  std::vector<Waiter> waiters_ ABSL_GUARDED_BY(mutex_);
};

PriceCache::Key PriceCache::KeyOf(const LoadedAdapter& adapter, absl::string_view text) {
  return Sha256Of(absl::StrCat(adapter.digest, absl::string_view("\0", 1), text));
}

PriceCache::PriceCache(int64_t max_bytes, BatchScheduler* scheduler, Metrics* metrics,
                       const Clock* clock)
    : max_bytes_(max_bytes), scheduler_(scheduler), metrics_(metrics), clock_(clock) {}

PriceCache::~PriceCache() {
  MutexLock lock(&mutex_);
  PRICER_CHECK(flights_.empty());
}

int64_t PriceCache::BytesOf(const Entry& entry) {
  // Lists, maps and allocations beside what they hold.
  constexpr size_t kOverhead = 256;
  return static_cast<int64_t>(kOverhead + sizeof(Entry) + sizeof(Key) +
                              entry.priced.distribution.memory_bytes());
}

std::optional<PriceCache::Priced> PriceCache::FindLocked(const Key& key) {
  const auto place = places_.find(key);
  if (place == places_.end()) return std::nullopt;
  entries_.splice(entries_.begin(), entries_, place->second);
  metrics_->CacheHit();
  return place->second->priced;
}

bool PriceCache::JoinLocked(const Key& key, Asker* asker) {
  const auto found = flights_.find(key);
  if (found == flights_.end() || !found->second->Suits(*asker)) return false;
  found->second->Add(std::move(*asker), clock_->Now());
  metrics_->Coalesced();
  return true;
}

PriceCache::Found PriceCache::FindOrJoin(const Key& key, bool may_be_kept, Asker* asker) {
  MutexLock lock(&mutex_);
  Found found;
  if (may_be_kept) found.priced = FindLocked(key);
  found.joined = !found.priced.has_value() && JoinLocked(key, asker);
  return found;
}

absl::Status PriceCache::ScheduleOrJoin(const Key& key, PriceTask&& task, PromptFacts prompt,
                                        Asker&& asker) {
  // Held while the task is scheduled, so that of two who ask at once one joins the other.
  MutexLock lock(&mutex_);
  if (JoinLocked(key, &asker)) return absl::OkStatus();
  task.lane = asker.lane;
  task.deadline = asker.deadline;
  const absl::Time now = clock_->Now();
  const absl::Time start_by = std::min(asker.deadline, now + BatchQueue::kPatience);
  const auto flight = std::make_shared<Flight>(asker.lane, start_by, prompt);
  flight->Add(std::move(asker), now);
  task.waiters = flight;
  task.done = [this, key, flight](TaskResult result) { Finish(key, flight, std::move(result)); };
  absl::Status status = scheduler_->Schedule(std::move(task));
  if (status.ok()) {
    flights_[key] = flight;
    return status;
  }
  asker = std::move(flight->TakeWaiters().front().asker);
  // What is refused was not moved from.
  task.waiters = nullptr;  // NOLINT(bugprone-use-after-move)
  task.done = nullptr;
  return status;
}

void PriceCache::Finish(const Key& key, const std::shared_ptr<Flight>& flight, TaskResult result) {
  // What is copied and freed is so outside of the lock, which every item takes several times.
  Entries kept;
  Entries evicted;
  if (result.distribution.ok() && max_bytes_ > 0) {
    kept.push_front({key, {*result.distribution, flight->prompt()}});
  }
  std::vector<Flight::Waiter> waiters;
  {
    MutexLock lock(&mutex_);
    // Not where another one, that was wanted earlier, has taken its place.
    const auto found = flights_.find(key);
    if (found != flights_.end() && found->second == flight) flights_.erase(found);
    if (!kept.empty()) KeepLocked(&kept, &evicted);
    waiters = flight->TakeWaiters();
  }
  if (waiters.empty()) return;
  const auto answer = [&waiters, &flight](Flight::Waiter* waiter, TaskResult own) {
    const absl::Duration later = waiter->joined - waiters.front().joined;
    own.queue_time = std::max(own.queue_time - later, absl::ZeroDuration());
    waiter->asker.done({std::move(own), flight->prompt()});
  };
  for (size_t i = 0; i + 1 < waiters.size(); ++i) answer(&waiters[i], result);
  answer(&waiters.back(), std::move(result));
}

void PriceCache::KeepLocked(Entries* kept, Entries* evicted) {
  const int64_t bytes = BytesOf(kept->front());
  if (bytes > max_bytes_ || !places_.try_emplace(kept->front().key, kept->begin()).second) return;
  entries_.splice(entries_.begin(), *kept);
  bytes_ += bytes;
  while (bytes_ > max_bytes_) {
    bytes_ -= BytesOf(entries_.back());
    places_.erase(entries_.back().key);
    evicted->splice(evicted->end(), entries_, std::prev(entries_.end()));
  }
  metrics_->CacheChanged(bytes_);
}

int64_t PriceCache::bytes() const {
  MutexLock lock(&mutex_);
  return bytes_;
}

}  // namespace pricer
