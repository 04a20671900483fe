#include "trainer/lr_schedule.h"

#include <gmock/gmock.h>

#include <cmath>
#include <vector>

#include "tests/testing/status_matchers.h"

namespace pricer {
namespace {

using ::testing::DoubleNear;
using ::testing::Pointwise;

std::vector<double> Factors(const LrSchedule& schedule) {
  std::vector<double> factors;
  for (int64_t step = 0; step < schedule.total_steps; ++step) {
    factors.push_back(schedule.Factor(step));
  }
  return factors;
}

TEST(LrScheduleTest, RisesLinearlyFromZeroThenFallsAlongHalfACosine) {
  // 0.5 (1 + cos(pi i / 6)) for i from 0 to 5.
  EXPECT_THAT(Factors({.total_steps = 8, .warmup_steps = 2}),
              Pointwise(DoubleNear(1e-12),
                        {0.0, 0.5, 1.0, 0.9330127018922193, 0.75, 0.5, 0.25, 0.06698729810778070}));
}

TEST(LrScheduleTest, RisesLinearlyThenFallsAlongALine) {
  EXPECT_THAT(Factors({.total_steps = 7, .warmup_steps = 2, .kind = LrSchedule::Kind::kLinear}),
              Pointwise(DoubleNear(1e-12), {0.0, 0.5, 1.0, 0.8, 0.6, 0.4, 0.2}));
}

TEST(LrScheduleTest, RisesLinearlyThenStays) {
  const LrSchedule schedule{
      .total_steps = 5, .warmup_steps = 2, .kind = LrSchedule::Kind::kConstant};
  EXPECT_THAT(Factors(schedule), Pointwise(DoubleNear(1e-12), {0.0, 0.5, 1.0, 1.0, 1.0}));
  EXPECT_EQ(schedule.Factor(400), 1.0);
}

TEST(LrScheduleTest, KindsHaveNames) {
  EXPECT_THAT(ParseLrScheduleKind("linear"), testing::IsOkAndHolds(LrSchedule::Kind::kLinear));
  EXPECT_THAT(ParseLrScheduleKind("polynomial"),
              testing::StatusIs(absl::StatusCode::kInvalidArgument,
                                ::testing::HasSubstr("--lr-schedule is polynomial")));
}

TEST(LrScheduleTest, StartsAtTheFullRateWithoutWarmUp) {
  EXPECT_THAT(Factors({.total_steps = 2, .warmup_steps = 0}),
              Pointwise(DoubleNear(1e-12), {1.0, 0.5}));
}

TEST(LrScheduleTest, IsZeroAfterTheLastStep) {
  const LrSchedule schedule{.total_steps = 4, .warmup_steps = 1};
  EXPECT_EQ(schedule.Factor(4), 0.0);
  EXPECT_EQ(schedule.Factor(400), 0.0);
}

TEST(LrScheduleTest, RoundsWarmUpStepsUp) {
  EXPECT_EQ(LrSchedule::WithWarmupRatio(40, 0.03).warmup_steps, 2);
  EXPECT_EQ(LrSchedule::WithWarmupRatio(100, 0.03).warmup_steps, 3);
  EXPECT_EQ(LrSchedule::WithWarmupRatio(101, 0.03).warmup_steps, 4);
  EXPECT_EQ(LrSchedule::WithWarmupRatio(40, 0.0).warmup_steps, 0);
}

TEST(LrScheduleTest, StaysFiniteWhereEveryStepIsWarmUp) {
  const LrSchedule schedule = LrSchedule::WithWarmupRatio(1, 0.5);
  EXPECT_EQ(schedule.warmup_steps, 1);
  EXPECT_EQ(schedule.Factor(0), 0.0);
  EXPECT_EQ(schedule.Factor(1), 0.0);
}

}  // namespace
}  // namespace pricer
