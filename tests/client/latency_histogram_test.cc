#include "client/latency_histogram.h"

#include <gmock/gmock.h>

#include <cmath>

namespace pricer {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

TEST(LatencyHistogramTest, NothingIsZero) {
  const LatencyHistogram histogram;
  EXPECT_EQ(histogram.count(), 0);
  EXPECT_EQ(histogram.Quantile(0.99), absl::ZeroDuration());
  EXPECT_EQ(histogram.Mean(), absl::ZeroDuration());
  EXPECT_THAT(histogram.Hgrm(), HasSubstr("Total count    =            0"));
}

TEST(LatencyHistogramTest, AQuantileIsTheLongestOfTheFastestShare) {
  LatencyHistogram histogram;
  for (int i = 1; i <= 1000; ++i) histogram.Record(absl::Microseconds(i));
  EXPECT_EQ(histogram.Quantile(0), absl::Microseconds(1));
  EXPECT_EQ(histogram.Quantile(0.5), absl::Microseconds(500));
  EXPECT_EQ(histogram.Quantile(0.999), absl::Microseconds(999));
  EXPECT_EQ(histogram.Quantile(0.9991), absl::Microseconds(1000));
  EXPECT_EQ(histogram.Quantile(1), absl::Microseconds(1000));
  EXPECT_EQ(histogram.Mean(), absl::Nanoseconds(500'500));
}

TEST(LatencyHistogramTest, EveryLengthIsKeptToThreeDigits) {
  for (int64_t microseconds = 1; microseconds < 3'600'000'000;
       microseconds = microseconds * 3 + 1) {
    LatencyHistogram histogram;
    histogram.Record(absl::Microseconds(microseconds));
    histogram.Record(absl::Hours(1));
    const double read = absl::ToDoubleMicroseconds(histogram.Quantile(0.5));
    const auto exact = static_cast<double>(microseconds);
    EXPECT_GE(read, exact);
    EXPECT_LE(read, exact * (1 + 1.0 / 1024)) << microseconds;
  }
}

TEST(LatencyHistogramTest, WhatLiesOutsideCountsAsTheNearest) {
  LatencyHistogram histogram;
  histogram.Record(absl::Seconds(-1));
  histogram.Record(absl::InfiniteDuration());
  EXPECT_EQ(histogram.count(), 2);
  EXPECT_EQ(histogram.Quantile(0.5), absl::ZeroDuration());
  EXPECT_EQ(histogram.max(), absl::Hours(1));
}

TEST(LatencyHistogramTest, MergedIsAsIfRecordedInOne) {
  LatencyHistogram one;
  LatencyHistogram other;
  LatencyHistogram both;
  for (int i = 0; i < 100; ++i) {
    const absl::Duration latency = absl::Milliseconds(i * i);
    (i % 3 == 0 ? one : other).Record(latency);
    both.Record(latency);
  }
  one.Merge(other);
  EXPECT_EQ(one.Hgrm(), both.Hgrm());
  EXPECT_EQ(one.count(), 100);
}

TEST(LatencyHistogramTest, TheTextOfPercentilesIsHdrHistograms) {
  LatencyHistogram histogram;
  for (int i = 1; i <= 100; ++i) histogram.Record(absl::Milliseconds(i));
  const std::string text = histogram.Hgrm();
  EXPECT_THAT(text, StartsWith("       Value     Percentile TotalCount 1/(1-Percentile)\n\n"
                               "       1.000 0.000000000000          1           1.00\n"));
  // Five rows to the middle, five to the quarter above it.
  EXPECT_THAT(text, HasSubstr("\n      50.015 0.500000000000         50           2.00\n"));
  EXPECT_THAT(text, HasSubstr("\n      55.007 0.550000000000         55           2.22\n"));
  EXPECT_THAT(text, HasSubstr("\n     100.000 1.000000000000        100\n#[Mean    =       50.500, "
                              "StdDeviation   =       28.866]\n"));
}

}  // namespace
}  // namespace pricer
