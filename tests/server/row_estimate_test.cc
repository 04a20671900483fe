#include "server/row_estimate.h"

#include <gtest/gtest.h>

namespace pricer {
namespace {

TEST(RowEstimateTest, IsTheMostThereCanBeUntilAnItemIsComputed) {
  RowEstimate estimate(1000);
  EXPECT_EQ(estimate.rows(), 1000);
  estimate.Add(40);
  EXPECT_EQ(estimate.rows(), 40);
}

TEST(RowEstimateTest, IsTheMeanOfTheItems) {
  RowEstimate estimate(1000);
  for (const int64_t rows : {0, 100, 200, 300}) estimate.Add(rows);
  EXPECT_EQ(estimate.rows(), 150);
}

TEST(RowEstimateTest, FollowsItemsOfAnotherKind) {
  RowEstimate estimate(1000);
  for (int i = 0; i < 10000; ++i) estimate.Add(10);
  for (int i = 0; i < 300; ++i) estimate.Add(500);
  EXPECT_GT(estimate.rows(), 480);
  EXPECT_LE(estimate.rows(), 500);
}

}  // namespace
}  // namespace pricer
