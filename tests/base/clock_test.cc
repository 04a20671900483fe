#include "base/clock.h"

#include <gtest/gtest.h>

#include "absl/time/clock.h"

namespace pricer {
namespace {

TEST(ClockTest, SystemClockFollowsTheMachine) {
  const absl::Time before = absl::Now();
  const absl::Time now = Clock::System()->Now();
  EXPECT_LE(before, now);
  EXPECT_LE(now, absl::Now());
}

}  // namespace
}  // namespace pricer
