#include "server/call_deadline.h"

#include <gtest/gtest.h>

#include "tests/server/fakes.h"

namespace pricer {
namespace {

using testing::FakeClock;

TEST(CallDeadlineTest, WhatIsLeftIsTheSameByEachClock) {
  FakeClock machine;
  FakeClock steady;
  // Somebody has set the machine's clock a day back.
  machine.Advance(-absl::Hours(24));
  const absl::Time deadline = machine.Now() + absl::Seconds(5);
  EXPECT_EQ(OnClock(deadline, machine, steady), steady.Now() + absl::Seconds(5));
  EXPECT_EQ(OnClock(absl::InfiniteFuture(), machine, steady), absl::InfiniteFuture());
  EXPECT_EQ(OnClock(absl::InfinitePast(), machine, steady), absl::InfinitePast());
}

TEST(CallDeadlineTest, AJumpOfTheMachinesClockMovesNoDeadlineThatWasTaken) {
  FakeClock machine;
  FakeClock steady;
  const absl::Time taken = OnClock(machine.Now() + absl::Seconds(5), machine, steady);
  for (const absl::Duration jump : {absl::Hours(24), absl::Hours(-48)}) {
    machine.Advance(jump);
    EXPECT_GT(taken, steady.Now());
  }
  steady.Advance(absl::Seconds(5));
  EXPECT_LE(taken, steady.Now());
}

TEST(CallDeadlineTest, ACallWithoutADeadlineHasNone) {
  EXPECT_EQ(CallDeadline(grpc::CallbackServerContext()), absl::InfiniteFuture());
}

}  // namespace
}  // namespace pricer
