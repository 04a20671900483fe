#include "trainer/loss.h"

#include <gmock/gmock.h>

#include <cmath>

namespace pricer {
namespace {

TEST(CrossEntropySumTest, EqualsHandComputedNumbers) {
  const at::Tensor logits = at::tensor({0.0f, std::log(3.0f), 1.0f, 1.0f}).view({2, 2});
  const at::Tensor targets = at::tensor({0.25f, 0.75f, 1.0f, 0.0f}).view({2, 2});
  // Softmax of the rows: [1/4, 3/4] and [1/2, 1/2].
  const double expected = -(0.25 * std::log(0.25) + 0.75 * std::log(0.75)) - std::log(0.5);
  EXPECT_NEAR(CrossEntropySum(logits, targets).item<double>(), expected, 1e-6);
}

TEST(CrossEntropySumTest, ItsGradientIsSoftmaxMinusTarget) {
  at::Tensor logits = at::tensor({0.0f, std::log(3.0f)}).view({1, 2});
  logits.set_requires_grad(true);
  CrossEntropySum(logits, at::tensor({1.0f, 0.0f}).view({1, 2})).backward();
  EXPECT_NEAR(logits.grad()[0][0].item<double>(), 0.25 - 1.0, 1e-6);
  EXPECT_NEAR(logits.grad()[0][1].item<double>(), 0.75, 1e-6);
}

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

TEST(CrossEntropySumTest, OfClassesIsThatOfTheirIndicators) {
  at::manual_seed(1);
  const at::Tensor logits = at::randn({5, 9});
  const at::Tensor classes = at::tensor({3, 0, 8, 8, 1}, at::kLong);
  EXPECT_NEAR(CrossEntropySum(logits, classes).item<double>(),
              CrossEntropySum(logits, at::one_hot(classes, 9).to(at::kFloat)).item<double>(), 1e-5);
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
