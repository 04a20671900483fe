#include "trainer/sampler.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <set>

namespace pricer {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr int64_t kNoLimit = std::numeric_limits<int64_t>::max();

std::vector<int64_t> Sorted(std::vector<int64_t> values) {
  std::sort(values.begin(), values.end());
  return values;
}

std::vector<int64_t> Iota(int64_t count) {
  std::vector<int64_t> values(count);
  std::iota(values.begin(), values.end(), 0);
  return values;
}

TEST(EpochOrderTest, IsAPermutation) {
  for (int64_t count : {0, 1, 2, 3, 100, 1000}) {
    EXPECT_EQ(Sorted(EpochOrder(7, 3, count)), Iota(count)) << count;
  }
}

TEST(EpochOrderTest, DependsOnSeedAndEpochAlone) {
  EXPECT_EQ(EpochOrder(7, 3, 100), EpochOrder(7, 3, 100));
  EXPECT_NE(EpochOrder(7, 3, 100), EpochOrder(7, 4, 100));
  EXPECT_NE(EpochOrder(7, 3, 100), EpochOrder(8, 3, 100));
  EXPECT_NE(EpochOrder(7, 3, 100), Iota(100));
}

TEST(EpochOrderTest, NeverChangesBetweenVersions) {
  // A change would give other adapters from the same seed.
  EXPECT_THAT(EpochOrder(1, 0, 6), ElementsAre(2, 4, 5, 3, 1, 0));
  EXPECT_THAT(EpochOrder(1, 1, 6), ElementsAre(2, 4, 3, 1, 5, 0));
}

TEST(EpochOrderTest, PutsEveryItemEverywhereEquallyOften) {
  constexpr int64_t kItems = 5;
  constexpr int64_t kEpochs = 20000;
  int64_t counts[kItems][kItems] = {};
  for (int64_t epoch = 0; epoch < kEpochs; ++epoch) {
    const std::vector<int64_t> order = EpochOrder(3, epoch, kItems);
    for (int64_t place = 0; place < kItems; ++place) ++counts[place][order[place]];
  }
  // 4000 expected; the standard deviation is 57.
  for (const auto& place : counts) {
    for (int64_t count : place) EXPECT_NEAR(static_cast<double>(count), 4000.0, 300.0);
  }
}

TEST(SplitByTokensTest, FillsEachRunUpToTheBudget) {
  const std::vector<int64_t> lengths = {4, 3, 5, 2, 9};
  const std::vector<int64_t> items = {1, 0, 3, 2, 4};
  EXPECT_THAT(SplitByTokens(items, lengths, 9),
              ElementsAre(ElementsAre(1, 0, 3), ElementsAre(2), ElementsAre(4)));
}

TEST(SplitByTokensTest, LetsAnItemLongerThanTheBudgetStandAlone) {
  const std::vector<int64_t> lengths = {2, 20, 2};
  EXPECT_THAT(SplitByTokens(Iota(3), lengths, 5),
              ElementsAre(ElementsAre(0), ElementsAre(1), ElementsAre(2)));
  EXPECT_THAT(SplitByTokens({}, lengths, 5), IsEmpty());
}

TEST(SamplerTest, DealsEveryExampleOncePerEpoch) {
  Sampler sampler(std::vector<int64_t>(50, 10), {.seed = 1, .epochs = 3, .batch_tokens = 70});
  std::vector<int64_t> dealt;
  for (std::vector<int64_t> step = sampler.NextStep(); !step.empty(); step = sampler.NextStep()) {
    EXPECT_LE(step.size(), 7u);
    dealt.insert(dealt.end(), step.begin(), step.end());
  }
  ASSERT_EQ(dealt.size(), 150u);
  for (int64_t epoch = 0; epoch < 3; ++epoch) {
    const std::vector<int64_t> part(dealt.begin() + 50 * epoch, dealt.begin() + 50 * (epoch + 1));
    EXPECT_EQ(Sorted(part), Iota(50)) << epoch;
    EXPECT_EQ(part, EpochOrder(1, epoch, 50)) << epoch;
  }
}

TEST(SamplerTest, StepsReachIntoTheNextEpochSoThatOnlyTheLastIsShort) {
  Sampler sampler(std::vector<int64_t>(5, 10), {.seed = 1, .epochs = 2, .batch_tokens = 30});
  EXPECT_EQ(sampler.CountSteps(kNoLimit), 4);
  EXPECT_EQ(sampler.NextStep().size(), 3u);
  EXPECT_EQ(sampler.NextStep().size(), 3u);
  EXPECT_EQ(sampler.NextStep().size(), 3u);
  EXPECT_EQ(sampler.NextStep().size(), 1u);
  EXPECT_THAT(sampler.NextStep(), IsEmpty());
}

TEST(SamplerTest, KeepsToTheTokenBudget) {
  std::vector<int64_t> lengths;
  for (int64_t i = 0; i < 200; ++i) lengths.push_back(5 + i * 37 % 90);
  Sampler sampler(lengths, {.seed = 9, .epochs = 1, .batch_tokens = 256});
  for (std::vector<int64_t> step = sampler.NextStep(); !step.empty(); step = sampler.NextStep()) {
    int64_t tokens = 0;
    for (int64_t item : step) tokens += lengths[item];
    EXPECT_LE(tokens, 256);
  }
}

TEST(SamplerTest, CountsStepsWithoutDealingThem) {
  Sampler sampler(std::vector<int64_t>(50, 10), {.seed = 1, .epochs = 2, .batch_tokens = 70});
  const std::vector<int64_t> first = Sampler(sampler).NextStep();
  EXPECT_EQ(sampler.CountSteps(kNoLimit), 15);
  EXPECT_EQ(sampler.CountSteps(4), 4);
  EXPECT_EQ(sampler.NextStep(), first);
}

TEST(SamplerTest, ReachesALimitWithinEndlessEpochsAtOnce) {
  const Sampler sampler({10, 20, 30}, {.seed = 1, .epochs = kNoLimit, .batch_tokens = 40});
  constexpr int64_t kManySteps = int64_t{1} << 50;
  EXPECT_EQ(sampler.CountSteps(kManySteps), kManySteps);
}

TEST(SamplerTest, DealsAnExampleLongerThanTheBudgetAlone) {
  Sampler sampler({100, 100}, {.seed = 1, .epochs = 1, .batch_tokens = 10});
  EXPECT_EQ(sampler.NextStep().size(), 1u);
  EXPECT_EQ(sampler.NextStep().size(), 1u);
  EXPECT_THAT(sampler.NextStep(), IsEmpty());
}

}  // namespace
}  // namespace pricer
