#include "base/open_files.h"

#include <sys/resource.h>

#include <limits>

#include "base/check.h"

namespace pricer {

int64_t RaiseOpenFileLimit() {
  rlimit limit{};
  PRICER_CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
  if (limit.rlim_cur < limit.rlim_max) {
    const rlimit raised = {.rlim_cur = limit.rlim_max, .rlim_max = limit.rlim_max};
    // It fails where the system's own bound is lower than the hard limit.
    if (setrlimit(RLIMIT_NOFILE, &raised) == 0) limit = raised;
  }
  if (limit.rlim_cur == RLIM_INFINITY) return std::numeric_limits<int64_t>::max();
  return static_cast<int64_t>(limit.rlim_cur);
}

}  // namespace pricer
