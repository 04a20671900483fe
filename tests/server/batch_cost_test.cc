#include "server/batch_cost.h"

#include <gtest/gtest.h>

namespace pricer {
namespace {

TEST(BatchCostTest, FindsConstantAndSlope) {
  BatchCost cost;
  EXPECT_FALSE(cost.known());
  for (int i = 0; i < 40; ++i) {
    const int64_t tokens = 100 + 53 * (i % 7);
    cost.Add(tokens, absl::Milliseconds(5) + tokens * absl::Microseconds(100));
  }
  ASSERT_TRUE(cost.known());
  EXPECT_NEAR(absl::ToDoubleMilliseconds(cost.OfBatch(1000)), 105, 0.1);
  // Three batches.
  EXPECT_NEAR(absl::ToDoubleMilliseconds(cost.OfQueue(2500, 1000)), 265, 0.1);
  EXPECT_EQ(cost.OfQueue(0, 1000), absl::ZeroDuration());
}

TEST(BatchCostTest, BatchesOfOneSizeSayWhatATokenCosts) {
  BatchCost cost;
  for (int i = 0; i < 5; ++i) cost.Add(200, absl::Milliseconds(50));
  EXPECT_NEAR(absl::ToDoubleMilliseconds(cost.OfBatch(400)), 100, 1e-6);
}

TEST(BatchCostTest, FollowsAChange) {
  BatchCost cost;
  for (int i = 0; i < 200; ++i) cost.Add(100 + i % 50, absl::Milliseconds(10));
  for (int i = 0; i < 200; ++i) cost.Add(100 + i % 50, absl::Milliseconds(40));
  EXPECT_NEAR(absl::ToDoubleMilliseconds(cost.OfBatch(120)), 40, 0.5);
}

TEST(BatchCostTest, AMachineThatStoodStillSaysLittleOfTheNextBatch) {
  BatchCost cost;
  for (int i = 0; i < 200; ++i) cost.Add(100 + i % 50, absl::Milliseconds(10));
  cost.Add(120, absl::Minutes(10));
  EXPECT_LT(cost.OfBatch(120), absl::Milliseconds(12));
}

TEST(BatchCostTest, WhatBatchesTakeAtMostFollowsHowFarTheyAreOff) {
  BatchCost even;
  BatchCost uneven;
  for (int i = 0; i < 400; ++i) {
    const int64_t tokens = 100 + 53 * (i % 7);
    even.Add(tokens, tokens * absl::Microseconds(100));
    uneven.Add(tokens, tokens * absl::Microseconds(i % 2 == 0 ? 80 : 120));
  }
  EXPECT_NEAR(absl::FDivDuration(even.AtMost(1000), even.OfBatch(1000)), 1.05, 1e-3);
  EXPECT_NEAR(absl::FDivDuration(uneven.AtMost(1000), uneven.OfBatch(1000)), 1.4, 0.03);
}

TEST(BatchCostTest, MoreTokensNeverTakeLess) {
  BatchCost cost;
  // As if larger batches were faster.
  cost.Add(100, absl::Milliseconds(50));
  cost.Add(1000, absl::Milliseconds(10));
  EXPECT_LE(cost.OfBatch(100), cost.OfBatch(1000));
  EXPECT_GE(cost.OfBatch(1), absl::ZeroDuration());
}

TEST(BatchCostTest, TokensInATimeAreThoseThatTakeIt) {
  BatchCost cost;
  for (int64_t tokens : {100, 200, 300, 400}) {
    cost.Add(tokens, absl::Milliseconds(10) + tokens * absl::Microseconds(100));
  }
  // Two whole batches of 110 ms, and one of 500 tokens.
  EXPECT_NEAR(static_cast<double>(cost.TokensIn(absl::Milliseconds(280), 1000)), 2500, 2);
  EXPECT_EQ(cost.TokensIn(absl::Milliseconds(5), 1000), 0);
  EXPECT_EQ(cost.TokensIn(-absl::Seconds(1), 1000), 0);
}

}  // namespace
}  // namespace pricer
