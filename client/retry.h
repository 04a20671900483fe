#pragma once

#include <cstdint>
#include <functional>
#include <limits>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/clock.h"

namespace pricer {

struct RetryOptions {
  static constexpr int kUnlimited = std::numeric_limits<int>::max();

  // Of the whole call, attempts and waits together. Raise it for a server that restarts slowly.
  absl::Duration timeout = absl::Seconds(30);
  // Attempts in all; 1 = no retry. A limit gives up before the timeout.
  int max_attempts = kUnlimited;
  // The wait before attempt n + 1 is random in [1/2, 1] of initial_backoff * 2^(n - 1), at most
  // max_backoff.
  absl::Duration initial_backoff = absl::Milliseconds(100);
  absl::Duration max_backoff = absl::Seconds(5);

  // InvalidArgument names the field.
  absl::Status Validate() const;
};

// Where time, chance and the wish to end come from; the defaults are the machine's.
struct RetryEnvironment {
  const Clock* clock = Clock::System();
  std::function<void(absl::Duration)> sleep;
  std::function<double()> uniform;  // in [0, 1)
  // Asked before each wait: true ends the retries. None = never. Thread-safe where calls are made
  // from several threads.
  std::function<bool()> stop = nullptr;

  static RetryEnvironment System();
};

// Calls `attempt` with the deadline of the whole call until it returns something other than
// Unavailable, attempts run out, `stop` says so or the next wait would pass the deadline; returns
// the last status, and with DeadlineExceeded why the attempt before failed. Only Unavailable is
// tried again: the server says it before it has begun. Blocks.
absl::Status CallWithRetry(const RetryOptions& options, const RetryEnvironment& environment,
                           const std::function<absl::Status(absl::Time deadline)>& attempt);

}  // namespace pricer
