#include "base/thread_priority.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <thread>

namespace pricer {
namespace {

int Nice() { return getpriority(PRIO_PROCESS, static_cast<id_t>(gettid())); }

TEST(ThreadPriorityTest, IsLoweredForTheCallingThreadAndThoseItStarts) {
  const int before = Nice();
  const int lower = std::min(before + 10, 19);
  std::thread([lower] {
    LowerThreadPriority();
    EXPECT_EQ(Nice(), lower);
    std::thread([lower] { EXPECT_EQ(Nice(), lower); }).join();
  }).join();
  EXPECT_EQ(Nice(), before);
}

}  // namespace
}  // namespace pricer
