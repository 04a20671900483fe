#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/mutex.h"

namespace pricer {

// Signs of life of the processes of a group: a thread counts up a number of its own in a store that
// all share and looks at those of the others. No torch. Thread-safe.
class Heartbeats {
 public:
  // Adds to the number that the store has for a rank and returns it. Throws where the store is
  // gone. Called from the thread alone.
  using Add = std::function<int64_t(int rank, int64_t by)>;

  static constexpr absl::Duration kInterval = absl::Milliseconds(500);

  Heartbeats(int rank, int size, Add add, const Clock* clock = Clock::System());
  ~Heartbeats();
  Heartbeats(const Heartbeats&) = delete;
  Heartbeats& operator=(const Heartbeats&) = delete;

  // Ranks that had given no sign for `limit` when the store last answered, in order.
  std::vector<int> SilentFor(absl::Duration limit) const;
  // Whether the store's last answer was that it is gone, and how long ago it last was there.
  bool store_is_gone() const;
  absl::Duration store_silence() const;

 private:
  void Run();
  void Look();

  const int rank_;
  const int size_;
  const Add add_;
  const Clock* const clock_;
  mutable Mutex mutex_;
  CondVar wake_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool store_is_gone_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Time looked_ ABSL_GUARDED_BY(mutex_);  // when the store last answered
  std::vector<int64_t> counts_ ABSL_GUARDED_BY(mutex_);
  std::vector<absl::Time> seen_ ABSL_GUARDED_BY(mutex_);  // when a count last rose
  std::thread thread_;
};

// "rank 1", "ranks 1 and 3", "ranks 1, 3 and 4".
std::string NameRanks(const std::vector<int>& ranks);

}  // namespace pricer
