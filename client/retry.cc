#include "client/retry.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace pricer {
namespace {

absl::Duration Backoff(const RetryOptions& options, int attempts_made, double uniform) {
  const double doublings = std::min(attempts_made - 1, 30);
  const absl::Duration full =
      std::min(options.initial_backoff * std::exp2(doublings), options.max_backoff);
  return full * (0.5 + 0.5 * uniform);
}

}  // namespace

absl::Status RetryOptions::Validate() const {
  if (timeout <= absl::ZeroDuration()) {
    return absl::InvalidArgumentError(
        absl::StrCat("timeout: expected more than 0, got ", absl::FormatDuration(timeout)));
  }
  if (max_attempts < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_attempts: expected at least 1, got ", max_attempts));
  }
  if (initial_backoff < absl::ZeroDuration() || max_backoff < initial_backoff) {
    return absl::InvalidArgumentError("backoff: expected 0 <= initial_backoff <= max_backoff");
  }
  return absl::OkStatus();
}

RetryEnvironment RetryEnvironment::System() {
  return {.clock = Clock::System(),
          .sleep = [](absl::Duration duration) { absl::SleepFor(duration); },
          .uniform =
              [] {
                thread_local std::mt19937_64 generator{std::random_device{}()};
                return std::uniform_real_distribution<double>(0.0, 1.0)(generator);
              }};
}

absl::Status CallWithRetry(const RetryOptions& options, const RetryEnvironment& environment,
                           const std::function<absl::Status(absl::Time deadline)>& attempt) {
  const absl::Time deadline = environment.clock->Now() + options.timeout;
  absl::Status unavailable;
  for (int attempts_made = 1;; ++attempts_made) {
    const absl::Status status = attempt(deadline);
    // Why it came to nothing was said before.
    if (absl::IsDeadlineExceeded(status) && !unavailable.ok()) {
      return absl::DeadlineExceededError(
          absl::StrCat(status.message(), "; the attempt before: ", unavailable.message()));
    }
    if (!absl::IsUnavailable(status) || attempts_made >= options.max_attempts) return status;
    unavailable = status;
    if (environment.stop && environment.stop()) return status;
    const absl::Duration wait = Backoff(options, attempts_made, environment.uniform());
    if (environment.clock->Now() + wait >= deadline) return status;
    environment.sleep(wait);
  }
}

}  // namespace pricer
