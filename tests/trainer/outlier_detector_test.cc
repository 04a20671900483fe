#include "trainer/outlier_detector.h"

#include <gmock/gmock.h>

#include <cmath>
#include <limits>

#include "tests/testing/status_matchers.h"

namespace pricer {
namespace {

using ::testing::DoubleNear;
using ::testing::ElementsAre;
using ::testing::Eq;
using ::testing::HasSubstr;
using ::testing::Optional;
using testing::StatusIs;

// Swings by 1 around 10.
double Wave(int i) { return i % 2 == 0 ? 11.0 : 9.0; }

OutlierDetector AfterWave(int count) {
  OutlierDetector detector({});
  for (int i = 0; i < count; ++i) detector.Score(Wave(i));
  return detector;
}

TEST(OutlierDetectorTest, ScoresNothingBeforeTheWindowHasEnoughValues) {
  OutlierDetector detector({});
  for (int i = 0; i < 16; ++i) EXPECT_THAT(detector.Score(Wave(i)), Eq(std::nullopt)) << i;
  EXPECT_THAT(detector.Score(10), Optional(0.0));
}

TEST(OutlierDetectorTest, ScoresInPopulationDeviationsOfTheWindow) {
  OutlierDetector detector({.window = 8, .min_values = 8});
  // Mean 5, population deviation 2 (the sample's would be 2.138).
  for (const double value : {2, 4, 4, 4, 5, 5, 7, 9}) detector.Score(value);
  EXPECT_THAT(detector.Score(12), Optional(DoubleNear(3.5, 1e-12)));
}

TEST(OutlierDetectorTest, ScoresAreNegativeBelowTheMean) {
  EXPECT_THAT(AfterWave(128).Score(3), Optional(DoubleNear(-7, 1e-9)));
}

TEST(OutlierDetectorTest, AValueIsScoredAgainstThoseBeforeItOnly) {
  // Of 17 values none is further than 4 deviations away from the mean of all of them.
  EXPECT_THAT(AfterWave(16).Score(110), Optional(DoubleNear(100, 1e-9)));
}

TEST(OutlierDetectorTest, ForgetsWhatLeavesTheWindow) {
  OutlierDetector detector({.window = 3, .min_values = 3});
  for (const double value : {1, 2, 3, 4, 5}) detector.Score(value);
  EXPECT_THAT(detector.window(), ElementsAre(3, 4, 5));
}

TEST(OutlierDetectorTest, AConstantSeriesHasFiniteScores) {
  OutlierDetector detector({});
  for (int i = 0; i < 128; ++i) detector.Score(4);
  EXPECT_THAT(detector.Score(4), Optional(0.0));
  EXPECT_THAT(detector.Score(4.004), Optional(DoubleNear(1, 1e-9)));
  OutlierDetector zeros({});
  for (int i = 0; i < 128; ++i) zeros.Score(0);
  EXPECT_THAT(zeros.Score(0), Optional(0.0));
  EXPECT_THAT(zeros.Score(3e-6), Optional(DoubleNear(3, 1e-9)));
}

TEST(OutlierDetectorTest, ASpikeDoesNotHideTheNext) {
  OutlierDetector detector = AfterWave(128);
  EXPECT_THAT(detector.Score(1e6), Optional(DoubleNear(999990, 1e-3)));
  EXPECT_DOUBLE_EQ(detector.window().back(), 16);  // mean + 6 deviations
  EXPECT_THAT(detector.Score(20), Optional(::testing::Gt(7.5)));
  EXPECT_THAT(detector.Score(0), Optional(::testing::Lt(-7.5)));
}

TEST(OutlierDetectorTest, ALastingShiftIsLearned) {
  OutlierDetector detector = AfterWave(128);
  int outliers = 0;
  int last = 0;
  for (int i = 0; i < 128; ++i) {
    if (*detector.Score(Wave(i) + 90) <= 6) continue;
    ++outliers;
    last = i;
  }
  EXPECT_GE(outliers, 3);
  EXPECT_LE(last, 25);  // a fifth of the window
}

TEST(OutlierDetectorTest, WhatIsNotFiniteHasNoScoreAndDoesNotEnter) {
  OutlierDetector detector = AfterWave(20);
  const std::vector<double> before = detector.window();
  EXPECT_THAT(detector.Score(std::nan("")), Eq(std::nullopt));
  EXPECT_THAT(detector.Score(std::numeric_limits<double>::infinity()), Eq(std::nullopt));
  EXPECT_EQ(detector.window(), before);
}

TEST(OutlierDetectorTest, ARestoredOneGivesTheSameBits) {
  OutlierDetector first({});
  // Values whose sums round; some are outliers.
  const auto value = [](int i) { return 3.0 + std::sin(i) / 7 + (i % 50 == 49 ? 40 : 0); };
  for (int i = 0; i < 200; ++i) first.Score(value(i));
  OutlierDetector second({});
  ASSERT_OK(second.Restore(first.window()));
  for (int i = 200; i < 500; ++i) EXPECT_EQ(first.Score(value(i)), second.Score(value(i))) << i;
  EXPECT_EQ(first.window(), second.window());
}

TEST(OutlierDetectorTest, RefusesWhatIsNoWindow) {
  OutlierDetector detector({.window = 2, .min_values = 1});
  ASSERT_OK(detector.Restore({1, 2}));
  EXPECT_THAT(detector.Restore({1, 2, 3}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("at most 2 values, got 3")));
  EXPECT_THAT(
      detector.Restore({1, std::nan("")}),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("value 1: expected a finite")));
  EXPECT_THAT(detector.window(), ElementsAre(1, 2));
}

}  // namespace
}  // namespace pricer
