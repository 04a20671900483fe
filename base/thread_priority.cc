#include "base/thread_priority.h"

#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>

namespace pricer {

void LowerThreadPriority() {
  constexpr int kLower = 10;
  // Linux has a nice value for each thread.
  const auto thread = static_cast<id_t>(gettid());
  errno = 0;
  const int now = getpriority(PRIO_PROCESS, thread);
  if (errno == 0) (void)setpriority(PRIO_PROCESS, thread, now + kLower);
}

}  // namespace pricer
