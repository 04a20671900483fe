#include "trainer/step_watch.h"

#include <gmock/gmock.h>

#include <cmath>

#include "absl/strings/str_cat.h"
#include "tests/testing/status_matchers.h"

namespace pricer {
namespace {

using ::testing::EndsWith;
using ::testing::Eq;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::Optional;
using testing::StatusIs;

// Losses swing by 0.1 around 3, gradient norms by 1 around 5. Nothing of it stands out.
StepWatch AfterSteps(int count) {
  StepWatch watch({});
  for (int i = 0; i < count; ++i) {
    const int sign = i % 2 == 0 ? 1 : -1;
    EXPECT_THAT(watch.Check(i + 1, 3 + 0.1 * sign, 5 + sign, {}), Eq(std::nullopt)) << i;
  }
  return watch;
}

TEST(StepWatchTest, SaysWhichStepStandsOutAndWhatWasInIt) {
  EXPECT_THAT(AfterSteps(128).Check(129, 3.72, 5, {{1032, "B00X"}, {7, ""}}),
              Optional(Eq("step 129: loss 3.72 is 7.2 standard deviations above the mean of the "
                          "last 128 steps; rows: 1032 (id 'B00X'), 7")));
}

TEST(StepWatchTest, WatchesTheGradientNormToo) {
  EXPECT_THAT(AfterSteps(57).Check(58, 3, 15, {}),
              Optional(::testing::AllOf(HasSubstr("step 58: gradient norm 15 is "),
                                        EndsWith("above the mean of the last 57 steps"))));
}

TEST(StepWatchTest, SaysBothInOneLine) {
  EXPECT_THAT(AfterSteps(128).Check(129, 4, 13, {}),
              Optional(HasSubstr("loss 4 is 10.0 and gradient norm 13 is 8.0 standard")));
}

TEST(StepWatchTest, TheThresholdItselfIsNotReported) {
  // Powers of two, so that nothing rounds.
  StepWatch watch({.detector = {.window = 16, .min_values = 16, .max_deviations = 4}});
  for (int i = 0; i < 16; ++i) watch.Check(i, i % 2 == 0 ? 3.0 : 5.0, 1, {});
  EXPECT_THAT(StepWatch(watch).Check(17, 8, 1, {}), Eq(std::nullopt));
  EXPECT_THAT(StepWatch(watch).Check(17, 8.5, 1, {}),
              Optional(HasSubstr("loss 8.5 is 4.5 standard")));
}

TEST(StepWatchTest, AFallIsNotReported) {
  EXPECT_THAT(AfterSteps(128).Check(129, 0.1, 0, {{1, ""}}), Eq(std::nullopt));
}

TEST(StepWatchTest, NothingStandsOutAmongTheFirstSteps) {
  EXPECT_THAT(AfterSteps(15).Check(16, 900, 900, {}), Eq(std::nullopt));
}

TEST(StepWatchTest, NamesTheFirst16RowsAndCountsTheOthers) {
  std::vector<WatchedRow> rows;
  for (int64_t i = 1; i <= 28; ++i) rows.push_back({i, ""});
  EXPECT_THAT(AfterSteps(128).Check(129, 9, 5, rows),
              Optional(EndsWith("; rows: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 and "
                                "12 more")));
  rows.resize(16);
  EXPECT_THAT(AfterSteps(128).Check(129, 9, 5, rows), Optional(EndsWith(" 15, 16")));
}

TEST(StepWatchTest, AnIdCannotForgeALine) {
  EXPECT_THAT(AfterSteps(128).Check(129, 9, 5, {{3, "a\nstep 130: fine"}}),
              Optional(::testing::AllOf(Not(HasSubstr("\n")), HasSubstr("'a\\nstep 130"))));
}

TEST(StepWatchTest, ARestoredOneSaysTheSame) {
  const StepWatch first = AfterSteps(57);
  StepWatch second({});
  ASSERT_OK(second.Restore(first.state()));
  StepWatch same(first);
  for (int i = 58; i < 300; ++i) {
    const double loss = 3 + std::sin(i) / 9 + (i % 40 == 0 ? 7 : 0);
    const auto line = same.Check(i, loss, 5, {{i, ""}});
    EXPECT_EQ(line.has_value(), i % 40 == 0) << i;
    EXPECT_EQ(line, second.Check(i, loss, 5, {{i, ""}})) << i;
  }
  EXPECT_EQ(same.state().losses, second.state().losses);
  EXPECT_EQ(same.state().gradient_norms, second.state().gradient_norms);
}

TEST(StepWatchTest, AStateThatIsNoneChangesNothing) {
  StepWatch watch = AfterSteps(20);
  const StepWatch::State before = watch.state();
  EXPECT_THAT(watch.Restore({{std::nan("")}, {1}}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("losses: window: value 0")));
  EXPECT_THAT(watch.Restore({{1}, std::vector<double>(129, 1)}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("gradient norms: window: expected at most 128 values, got 129")));
  EXPECT_EQ(watch.state().losses, before.losses);
  EXPECT_EQ(watch.state().gradient_norms, before.gradient_norms);
}

}  // namespace
}  // namespace pricer
