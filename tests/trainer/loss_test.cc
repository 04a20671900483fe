#include "trainer/loss.h"

#include <gmock/gmock.h>

#include <cmath>

namespace pricer {
namespace {

TEST(MakeBinsMicroBatchTest, PacksTheChosenExamplesWithTheirTargets) {
  const std::vector<Example> examples = {
      {.ids = {5, 6}, .price = 10}, {.ids = {7}, .price = 20}, {.ids = {8, 9, 10}, .price = 40}};
  const BinsSpec bins = {.bins = 16, .min_price = 5, .max_price = 80, .sigma = 0.75};
  const MicroBatch micro_batch = MakeBinsMicroBatch(examples, {2, 0}, bins);
  EXPECT_EQ(micro_batch.batch.sequence_count(), 2);
  EXPECT_EQ(micro_batch.batch.token_count(), 5);
  EXPECT_EQ(micro_batch.batch.ids[0].item<int64_t>(), 8);
  EXPECT_EQ(micro_batch.batch.ids[3].item<int64_t>(), 5);
  EXPECT_THAT(micro_batch.batch.adapter, ::testing::ElementsAre(0, 0));
  const std::vector<float> first = bins.Target(40);
  for (int i = 0; i < 16; ++i) EXPECT_EQ(micro_batch.targets[0][i].item<float>(), first[i]);
  EXPECT_NEAR(micro_batch.targets.sum().item<double>(), 2.0, 1e-5);
}

TEST(MakeTokenMicroBatchTest, EveryCompletionTokenIsTheTargetOfTheTokenBeforeIt) {
  const std::vector<Example> examples = {
      {.ids = {5, 6, 7}, .price = 1, .completion_tokens = 1},
      {.ids = {8, 9, 10, 11}, .price = 1, .completion_tokens = 3}};
  const MicroBatch micro_batch = MakeTokenMicroBatch(examples, {1, 0});
  EXPECT_EQ(micro_batch.batch.token_count(), 5);
  EXPECT_THAT(micro_batch.batch.answer_offsets, ::testing::ElementsAre(0, 3, 4));
  EXPECT_TRUE(at::equal(micro_batch.batch.ids, at::tensor({8, 9, 10, 5, 6}, at::kLong)));
  EXPECT_TRUE(at::equal(micro_batch.targets, at::tensor({9, 10, 11, 7}, at::kLong)));
  EXPECT_THAT(micro_batch.rows, ::testing::ElementsAre(1, 0));
}

}  // namespace
}  // namespace pricer
