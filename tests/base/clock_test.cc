#include "base/clock.h"

#include <gtest/gtest.h>

#include "absl/time/clock.h"
#include "base/steady_clock.h"

namespace pricer {
namespace {

TEST(ClockTest, SystemClockFollowsTheMachine) {
  const absl::Time before = absl::Now();
  const absl::Time now = Clock::System()->Now();
  EXPECT_LE(before, now);
  EXPECT_LE(now, absl::Now());
}

TEST(ClockTest, SteadyClockBeginsAsTheMachinesAndOnlyMovesOn) {
  absl::Time before = SteadyClock()->Now();
  EXPECT_LT(absl::AbsDuration(before - absl::Now()), absl::Minutes(10));
  for (int i = 0; i < 1000; ++i) {
    const absl::Time now = SteadyClock()->Now();
    ASSERT_LE(before, now);
    before = now;
  }
}

}  // namespace
}  // namespace pricer
