#include "server/ticker.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <thread>

namespace pricer {
namespace {

TEST(TickerTest, CallsUntilItIsDestroyed) {
  std::atomic<int> ticks{0};
  auto ticker = std::make_unique<Ticker>(absl::Milliseconds(1), [&ticks] { ++ticks; });
  while (ticks < 3) std::this_thread::yield();
  ticker.reset();
  const int before = ticks;
  for (int i = 0; i < 1000; ++i) std::this_thread::yield();
  EXPECT_EQ(ticks, before);
}

TEST(TickerTest, EndsAtOnceHoweverLongTheInterval) {
  std::atomic<int> ticks{0};
  {
    const Ticker ticker(absl::Hours(1), [&ticks] { ++ticks; });
  }
  EXPECT_EQ(ticks, 0);
}

}  // namespace
}  // namespace pricer
