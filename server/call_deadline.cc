#include "server/call_deadline.h"

#include <chrono>

#include "base/steady_clock.h"

namespace pricer {

absl::Time OnClock(absl::Time time, const Clock& from, const Clock& to) {
  return to.Now() + (time - from.Now());
}

absl::Time CallDeadline(const grpc::ServerContextBase& context) {
  const std::chrono::system_clock::time_point deadline = context.deadline();
  if (deadline == std::chrono::system_clock::time_point::max()) return absl::InfiniteFuture();
  return OnClock(absl::FromChrono(deadline), *Clock::System(), *SteadyClock());
}

}  // namespace pricer
