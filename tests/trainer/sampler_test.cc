#include "trainer/sampler.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <set>

#include "tests/testing/status_matchers.h"

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

TEST(GroupByLengthTest, SortsRunsByFallingLengthAndBeginsWithTheLongest) {
  // 16 examples in steps of 2: runs of 2 steps.
  const std::vector<int64_t> lengths = {3, 1, 2, 4, 9, 5, 6, 5, 1, 1, 2, 2, 7, 8, 8, 7};
  std::vector<int64_t> order = Iota(16);
  GroupByLength(lengths, 2, order);
  EXPECT_THAT(order, ElementsAre(4, 0, 2, 1, 3, 6, 5, 7, 10, 11, 8, 9, 13, 14, 12, 15));
}

TEST(GroupByLengthTest, SortsAFewExamplesAsOneStep) {
  std::vector<int64_t> order = {2, 0, 1};
  GroupByLength({{5, 7, 7}}, 2, order);
  EXPECT_THAT(order, ElementsAre(2, 0, 1));
}

TEST(SampleOrderTest, HasNames) {
  for (const auto order :
       {SampleOrder::kShuffled, SampleOrder::kSequential, SampleOrder::kLengthGrouped}) {
    EXPECT_THAT(ParseSampleOrder(SampleOrderName(order)), testing::IsOkAndHolds(order));
  }
  EXPECT_THAT(ParseSampleOrder("random"),
              testing::StatusIs(absl::StatusCode::kInvalidArgument,
                                ::testing::HasSubstr("--order is random")));
}

TEST(SamplerTest, StepsOfItemsEndWithTheEpoch) {
  Sampler sampler({1, 1, 1, 1, 1},
                  {.epochs = 2, .batch_items = 2, .order = SampleOrder::kSequential});
  EXPECT_EQ(sampler.CountSteps(kNoLimit), 6);
  EXPECT_EQ(sampler.CountSteps(4), 4);
  for (int epoch = 0; epoch < 2; ++epoch) {
    EXPECT_THAT(sampler.NextStep(), ElementsAre(0, 1));
    EXPECT_THAT(sampler.NextStep(), ElementsAre(2, 3));
    EXPECT_THAT(sampler.NextStep(), ElementsAre(4));
  }
  EXPECT_THAT(sampler.NextStep(), IsEmpty());
}

TEST(SamplerTest, CountsStepsOfEpochsWithoutEnd) {
  const Sampler sampler({1, 1, 1}, {.epochs = kNoLimit, .batch_items = 2});
  EXPECT_EQ(sampler.CountSteps(1000), 1000);
}

TEST(SamplerTest, EachEpochIsGroupedByLengthAnew) {
  std::vector<int64_t> lengths;
  for (int64_t i = 0; i < 64; ++i) lengths.push_back(1 + i % 7);
  Sampler sampler(lengths,
                  {.seed = 5, .epochs = 2, .batch_items = 4, .order = SampleOrder::kLengthGrouped});
  std::vector<std::vector<int64_t>> epochs(2);
  for (std::vector<int64_t>& epoch : epochs) {
    for (int step = 0; step < 16; ++step) {
      const std::vector<int64_t> items = sampler.NextStep();
      epoch.insert(epoch.end(), items.begin(), items.end());
    }
    EXPECT_EQ(Sorted(epoch), Iota(64));
    // Runs of 16 examples: the length rises only where a run begins.
    int rises = 0;
    for (size_t i = 1; i < epoch.size(); ++i) rises += lengths[epoch[i]] > lengths[epoch[i - 1]];
    EXPECT_LE(rises, 4);
  }
  EXPECT_NE(epochs[0], epochs[1]);
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

TEST(ShareByTokensTest, DealsTheLongestFirstAndKeepsTheOrder) {
  const std::vector<int64_t> lengths = {5, 1, 9, 3, 4, 2};
  const std::vector<int64_t> items = {0, 1, 2, 3, 4, 5};
  EXPECT_THAT(ShareByTokens(items, lengths, 2),
              ElementsAre(ElementsAre(2, 3), ElementsAre(0, 1, 4, 5)));
  EXPECT_THAT(ShareByTokens(items, lengths, 1), ElementsAre(ElementsAre(0, 1, 2, 3, 4, 5)));
}

TEST(ShareByTokensTest, SharesDifferByNoMoreThanTheLongestItem) {
  std::vector<int64_t> lengths, items;
  for (int64_t i = 0; i < 100; ++i) {
    lengths.push_back(1 + i * 37 % 91);
    items.push_back(i);
  }
  std::vector<int64_t> tokens;
  for (const auto& share : ShareByTokens(items, lengths, 7)) {
    tokens.push_back(0);
    for (int64_t item : share) tokens.back() += lengths[item];
  }
  EXPECT_LE(*std::max_element(tokens.begin(), tokens.end()) -
                *std::min_element(tokens.begin(), tokens.end()),
            8);
}

TEST(ShareByTokensTest, AShareMayBeEmpty) {
  EXPECT_THAT(ShareByTokens({{1, 0}}, {{2, 2}}, 3),
              ElementsAre(ElementsAre(1), ElementsAre(0), ElementsAre()));
}

}  // namespace
}  // namespace pricer
