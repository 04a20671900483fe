#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "server/log_sampler.h"
#include "server/metrics.h"

namespace pricer {

// What a call is known by in the log.
struct CallTags {
  std::string caller;
  // The caller's own x-request-id, or one that was made up.
  std::string request_id;
  // The caller's traceparent (W3C Trace Context); empty = none, or not well formed.
  std::string trace_parent;
  // When its handler was entered.
  absl::Time started = absl::InfiniteFuture();
};

// "00-" 32 hexadecimal digits "-" 16 "-" 2, of which neither id is all zeros; later versions may
// have more behind that (W3C Trace Context, section 3.2).
bool IsTraceParent(absl::string_view text);
// 1 to 128 printable ASCII characters.
bool IsRequestId(absl::string_view text);

// Counts ended calls and logs those that failed: by the server's fault as errors, others as infos,
// and all as debug. Of one method and code, few lines a second are written, and the next one says
// how many were not. Thread-safe.
class CallLog {
 public:
  // Both must outlive the log.
  CallLog(Metrics* metrics, const Clock* clock)
      : metrics_(metrics), clock_(clock), sampler_(clock) {}

  void Ended(absl::string_view method, const absl::Status& status, const CallTags& tags);

 private:
  Metrics* const metrics_;
  const Clock* const clock_;
  // By method and code: methods are the protocol's, so that there are few.
  LogSampler sampler_;
};

}  // namespace pricer
