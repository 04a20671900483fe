#include "catalog/random.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace pricer {
namespace {

TEST(RandomTest, FollowsTheEngineThatTheStandardFixes) {
  // C++ standard, [rand.predef]: the 10000th value of a default mt19937_64 is 9981545732273789042.
  Random random(5489);
  double uniform = 0;
  for (int i = 0; i < 10'000; ++i) uniform = random.Uniform();
  EXPECT_EQ(uniform, static_cast<double>(9981545732273789042U >> 11) * 0x1p-53);
}

TEST(RandomTest, UniformStaysBelowOneWithTheRightMoments) {
  Random random(1);
  double sum = 0, squares = 0;
  constexpr int kDraws = 100'000;
  for (int i = 0; i < kDraws; ++i) {
    const double u = random.Uniform();
    ASSERT_GE(u, 0);
    ASSERT_LT(u, 1);
    sum += u;
    squares += u * u;
  }
  EXPECT_NEAR(sum / kDraws, 0.5, 0.005);
  EXPECT_NEAR(squares / kDraws, 1.0 / 3, 0.005);
}

TEST(RandomTest, IndexReachesEveryValueEquallyOften) {
  Random random(2);
  std::vector<int> counts(7);
  for (int i = 0; i < 70'000; ++i) ++counts.at(random.Index(counts.size()));
  for (const int count : counts) EXPECT_NEAR(count, 10'000, 400);
  EXPECT_EQ(random.Index(1), 0);
}

TEST(RandomTest, ChanceHasItsProbability) {
  Random random(3);
  int hits = 0;
  for (int i = 0; i < 100'000; ++i) hits += random.Chance(0.3) ? 1 : 0;
  EXPECT_NEAR(hits, 30'000, 600);
  EXPECT_FALSE(random.Chance(0));
  EXPECT_TRUE(random.Chance(1));
}

TEST(RandomTest, NormalHasMomentsAndTailsOfTheNormalDistribution) {
  Random random(4);
  double sum = 0, squares = 0, fourths = 0;
  int beyond_two = 0;
  constexpr int kDraws = 200'000;
  for (int i = 0; i < kDraws; ++i) {
    const double z = random.Normal();
    ASSERT_TRUE(std::isfinite(z));
    sum += z;
    squares += z * z;
    fourths += z * z * z * z;
    beyond_two += std::abs(z) > 2 ? 1 : 0;
  }
  EXPECT_NEAR(sum / kDraws, 0, 0.01);
  EXPECT_NEAR(squares / kDraws, 1, 0.02);
  EXPECT_NEAR(fourths / kDraws, 3, 0.1);
  EXPECT_NEAR(static_cast<double>(beyond_two) / kDraws, 0.0455, 0.003);
}

}  // namespace
}  // namespace pricer
