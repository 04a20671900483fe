#pragma once

#include <cstddef>
#include <functional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "server/adapter_registry.h"
#include "server/golden_checker.h"

namespace pricer {

// Whether the server still prices right: golden items of what answers by default are priced again,
// one at each check, through the batch loop as everything else. A loop that does not come round, a
// device that hangs and prices that have changed all show here. Without golden items there is
// nothing to compare, and all is well.
class SelfCheck {
 public:
  // `report` hears of each change of the answer, with the reason where it is false, and is not
  // called while a lock is held. All is well until a check says otherwise. A check may take
  // `timeout`. All must outlive the self-check.
  using ReportFunction = std::function<void(bool well, const std::string& reason)>;
  SelfCheck(const AdapterRegistry* registry, GoldenChecker* golden, absl::Duration timeout,
            const Clock* clock, ReportFunction report);

  // Prices the next item; blocks as long as that takes. One thread.
  void Check();

  // Looks whether a check has taken too long. Thread-safe; not while another thread is in here.
  void Watch();

 private:
  void Report();

  const AdapterRegistry* const registry_;
  GoldenChecker* const golden_;
  const absl::Duration timeout_;
  const Clock* const clock_;
  const ReportFunction report_;

  // Of whoever checks.
  size_t next_ = 0;

  Mutex mutex_;
  // Of the check that runs; infinite future = none does.
  absl::Time began_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteFuture();
  std::string problem_ ABSL_GUARDED_BY(mutex_);
  bool reported_ ABSL_GUARDED_BY(mutex_) = true;
};

}  // namespace pricer
