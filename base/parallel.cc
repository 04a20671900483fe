#include "base/parallel.h"

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

namespace pricer {

void ParallelFor(int64_t count, int threads, const std::function<void(int64_t)>& work) {
  const int64_t most =
      threads > 0 ? threads : std::max<int64_t>(std::thread::hardware_concurrency(), 1);
  std::atomic<int64_t> next = 0;
  const auto run = [&] {
    for (int64_t i = next++; i < count; i = next++) work(i);
  };
  std::vector<std::thread> others;
  for (int64_t i = 1; i < std::min(most, count); ++i) others.emplace_back(run);
  run();
  for (std::thread& other : others) other.join();
}

}  // namespace pricer
