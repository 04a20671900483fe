#include "base/parallel.h"

#include <gtest/gtest.h>

#include <set>
#include <thread>
#include <vector>

#include "base/mutex.h"

namespace pricer {
namespace {

TEST(ParallelForTest, CallsEachOnce) {
  for (const int threads : {0, 1, 3, 64}) {
    std::vector<int> calls(1000);
    ParallelFor(1000, threads, [&](int64_t i) { ++calls[i]; });
    EXPECT_EQ(calls, std::vector<int>(1000, 1)) << threads;
  }
}

TEST(ParallelForTest, TakesNoMoreThreadsThanGiven) {
  for (const int threads : {1, 3}) {
    Mutex mutex;
    std::set<std::thread::id> seen;
    ParallelFor(500, threads, [&](int64_t) {
      const MutexLock lock(&mutex);
      seen.insert(std::this_thread::get_id());
    });
    EXPECT_LE(static_cast<int>(seen.size()), threads);
  }
}

TEST(ParallelForTest, NothingIsNoWork) {
  ParallelFor(0, 4, [](int64_t) { FAIL(); });
}

}  // namespace
}  // namespace pricer
