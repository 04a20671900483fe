#pragma once

#include "absl/time/time.h"
#include "base/clock.h"
#include "grpcpp/server_context.h"

namespace pricer {

// What lies at `time` by the one clock, by the other; infinite times stay so. The machine's clock
// may be set while a call waits: its deadline is kept by a clock that is not.
absl::Time OnClock(absl::Time time, const Clock& from, const Clock& to);

// When the caller stops waiting, by SteadyClock(). InfiniteFuture = never.
absl::Time CallDeadline(const grpc::ServerContextBase& context);

}  // namespace pricer
