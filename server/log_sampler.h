#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/mutex.h"

namespace pricer {

// Lets few lines of a kind through a second, so that a flood does not drown the log. Thread-safe.
class LogSampler {
 public:
  // Of one kind.
  static constexpr int kLinesPerSecond = 5;

  // `clock` must outlive the sampler.
  explicit LogSampler(const Clock* clock) : clock_(clock) {}

  // How many lines of the kind were dropped since the last one that was not; -1 = this one is
  // dropped too. REQUIRES: kinds are few.
  int64_t TakeLine(const std::string& kind);

 private:
  struct Second {
    absl::Time start = absl::InfinitePast();
    int lines = 0;
    int64_t dropped = 0;
  };

  const Clock* const clock_;

  Mutex mutex_;
  std::map<std::string, Second> seconds_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace pricer
