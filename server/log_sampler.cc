#include "server/log_sampler.h"

#include <utility>

namespace pricer {

int64_t LogSampler::TakeLine(const std::string& kind) {
  const absl::Time now = clock_->Now();
  MutexLock lock(&mutex_);
  Second& second = seconds_[kind];
  // A clock that was set back begins anew.
  if (now - second.start >= absl::Seconds(1) || now < second.start) {
    second.start = now;
    second.lines = 0;
  }
  if (second.lines >= kLinesPerSecond) {
    ++second.dropped;
    return -1;
  }
  ++second.lines;
  return std::exchange(second.dropped, 0);
}

}  // namespace pricer
