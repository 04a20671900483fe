#include "base/steady_clock.h"

#include <chrono>

#include "absl/time/clock.h"

namespace pricer {
namespace {

class MonotonicClock final : public Clock {
 public:
  absl::Time Now() const override {
    return begin_ + absl::FromChrono(std::chrono::steady_clock::now() - steady_begin_);
  }

 private:
  const absl::Time begin_ = absl::Now();
  const std::chrono::steady_clock::time_point steady_begin_ = std::chrono::steady_clock::now();
};

}  // namespace

const Clock* SteadyClock() {
  static const MonotonicClock* const clock = new MonotonicClock;
  return clock;
}

}  // namespace pricer
