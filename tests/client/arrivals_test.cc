#include "client/arrivals.h"

#include <gmock/gmock.h>

#include <cmath>
#include <vector>

#include "tests/testing/status_matchers.h"

namespace pricer {
namespace {

using ::pricer::testing::StatusIs;
using ::testing::HasSubstr;

std::vector<Arrivals::Arrival> All(const ArrivalOptions& options, uint64_t seed = 1) {
  std::vector<Arrivals::Arrival> all;
  Arrivals arrivals(options, seed);
  while (const auto arrival = arrivals.Next()) all.push_back(*arrival);
  return all;
}

TEST(ArrivalsTest, ConstantArrivalsAreEven) {
  const auto all =
      All({.pattern = ArrivalPattern::kConstant, .rate = 4, .duration = absl::Seconds(2)});
  ASSERT_EQ(all.size(), 7);
  for (size_t i = 0; i < all.size(); ++i) {
    EXPECT_EQ(all[i].time, absl::Milliseconds(250) * static_cast<double>(i + 1));
  }
}

TEST(ArrivalsTest, PoissonArrivalsHaveTheirRateAndSpread) {
  const auto all = All({.rate = 1000, .duration = absl::Seconds(100)});
  EXPECT_NEAR(static_cast<double>(all.size()), 100'000, 4 * std::sqrt(100'000));
  // Of an exponential distribution, the standard deviation is the mean.
  double square_sum = 0;
  for (size_t i = 1; i < all.size(); ++i) {
    ASSERT_GE(all[i].time, all[i - 1].time);
    const double gap = absl::ToDoubleSeconds(all[i].time - all[i - 1].time);
    square_sum += gap * gap;
  }
  EXPECT_NEAR(square_sum / static_cast<double>(all.size()), 2e-6, 1e-7);
  EXPECT_LT(all.back().time, absl::Seconds(100));
}

TEST(ArrivalsTest, StepsRiseToTheWholeRate) {
  const ArrivalOptions options = {
      .pattern = ArrivalPattern::kStep, .rate = 1000, .steps = 4, .duration = absl::Seconds(80)};
  std::vector<double> counts(4);
  for (const auto& arrival : All(options)) {
    EXPECT_EQ(arrival.stage, static_cast<int>(absl::ToDoubleSeconds(arrival.time) / 20));
    ++counts[arrival.stage];
  }
  for (int stage = 0; stage < 4; ++stage) {
    const double expected = 20 * options.RateOf(stage);
    EXPECT_NEAR(counts[stage], expected, 4 * std::sqrt(expected));
  }
  EXPECT_EQ(options.RateOf(3), 1000);
}

TEST(ArrivalsTest, ASeedGivesTheSameTimesAgain) {
  const ArrivalOptions options = {.rate = 50, .duration = absl::Seconds(1)};
  const auto once = All(options, 7);
  const auto again = All(options, 7);
  ASSERT_EQ(once.size(), again.size());
  for (size_t i = 0; i < once.size(); ++i) EXPECT_EQ(once[i].time, again[i].time);
  EXPECT_NE(All(options, 8).front().time, once.front().time);
}

TEST(ArrivalsTest, WrongOptionsNameTheFlag) {
  EXPECT_THAT(ParseArrivalPattern("bursts"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("--arrivals")));
  EXPECT_THAT((ArrivalOptions{.rate = 0}.Validate()),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("--rate")));
  EXPECT_THAT((ArrivalOptions{.rate = std::nan("")}.Validate()),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("--rate")));
  EXPECT_THAT((ArrivalOptions{.steps = 0}.Validate()),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("--steps")));
  EXPECT_THAT((ArrivalOptions{.duration = absl::ZeroDuration()}.Validate()),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("--duration")));
}

}  // namespace
}  // namespace pricer
