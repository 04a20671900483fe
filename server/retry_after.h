#pragma once

#include <optional>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace pricer {

// A status that says when to try again.
absl::Status WithRetryAfter(absl::Status status, absl::Duration delay);
std::optional<absl::Duration> RetryAfterOf(const absl::Status& status);

}  // namespace pricer
