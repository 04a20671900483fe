#include "catalog/median.h"

#include <gtest/gtest.h>

namespace pricer {
namespace {

TEST(MedianTest, OfOddAndEvenCounts) {
  EXPECT_EQ(Median({5}), 5);
  EXPECT_EQ(Median({9, 1, 5}), 5);
  EXPECT_EQ(Median({9, 1, 5, 7}), 6);
}

}  // namespace
}  // namespace pricer
