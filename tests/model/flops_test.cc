#include "model/flops.h"

#include <gmock/gmock.h>

namespace pricer {
namespace {

// Two layers of 84 parameters: q and o 4 x 4, k and v 2 x 4, gate and up 3 x 4, down 4 x 3.
ModelConfig TwoLayers() {
  ModelConfig config;
  config.vocabulary_size = 7;
  config.hidden_size = 4;
  config.layer_count = 2;
  config.head_count = 2;
  config.kv_head_count = 1;
  config.head_dim = 2;
  config.ffn_size = 3;
  return config;
}

// Five tokens, three of them answers, in two sequences.
BatchWork TwoSequences() {
  BatchWork batch;
  batch.Add(3, 1);
  batch.Add(2, 2);
  return batch;
}

LoraRanks NoLora() { return LoraRanks(2); }

void SetRank(LoraRanks* ranks, int64_t layer, Projection projection, int64_t rank) {
  (*ranks)[layer][static_cast<int>(projection)] = rank;
}

TEST(FlopsTest, EachAnswerSeesItselfAndWhatStandsBeforeIt) {
  const BatchWork batch = TwoSequences();
  EXPECT_EQ(batch.tokens, 5);
  EXPECT_EQ(batch.answers, 3);
  EXPECT_EQ(batch.token_pairs, (1 + 2 + 3) + (1 + 2));
  EXPECT_EQ(batch.answer_pairs, 3 + (1 + 2));
}

TEST(FlopsTest, TheLastLayerComputesOnlyKeysAndValuesOfTokensThatAreNoAnswers) {
  constexpr double kFirst = 2 * 84 * 5 + 4 * 4 * 9;
  constexpr double kLast = 2 * 16 * 5 + 2 * 68 * 3 + 4 * 4 * 6;
  constexpr double kHead = 2 * 4 * 10 * 3;
  EXPECT_EQ(ForwardFlops(TwoLayers(), NoLora(), {.rows = 10}, TwoSequences()),
            kFirst + kLast + kHead);
}

TEST(FlopsTest, LoraAddsTwoThinProducts) {
  LoraRanks ranks = NoLora();
  SetRank(&ranks, 0, Projection::kDown, 2);
  SetRank(&ranks, 1, Projection::kQ, 1);
  constexpr double kDown = 2 * 2 * (3 + 4) * 5;
  constexpr double kQ = 2 * 1 * (4 + 4) * 3;
  EXPECT_EQ(ForwardFlops(TwoLayers(), ranks, {}, TwoSequences()),
            ForwardFlops(TwoLayers(), NoLora(), {}, TwoSequences()) + kDown + kQ);
}

TEST(FlopsTest, TheBackwardPassEndsAtTheLowestLora) {
  LoraRanks ranks = NoLora();
  SetRank(&ranks, 0, Projection::kDown, 2);
  SetRank(&ranks, 1, Projection::kQ, 1);
  // Of the first layer dB, dh and dA of down alone.
  constexpr double kFirst = 2 * 2 * 5 * (4 + 4 + 3);
  // Of the last layer every dx, attention, and all of q's LoRA.
  constexpr double kLast = 2 * 16 * 5 + 2 * 68 * 3 + 2 * (4 * 4 * 6) + 2 * 1 * 3 * (4 + 4 + 4 + 4);
  EXPECT_EQ(BackwardFlops(TwoLayers(), ranks, {}, TwoSequences()), kFirst + kLast);
}

TEST(FlopsTest, LoraOnAQueryNeedsTheGradientOfItsAttention) {
  LoraRanks ranks = NoLora();
  SetRank(&ranks, 1, Projection::kQ, 1);
  constexpr double kQ = 2 * 1 * 3 * (4 + 4 + 4);
  constexpr double kAbove = 2 * (16 + 12 + 12 + 12) * 3;
  EXPECT_EQ(BackwardFlops(TwoLayers(), ranks, {}, TwoSequences()), kQ + 2 * (4 * 4 * 6) + kAbove);
}

TEST(FlopsTest, AHeadHasGradientsOfItsStatesAndWhereItIsTrainedOfItsRows) {
  constexpr double kHead = 2 * 4 * 10 * 3;
  LoraRanks ranks = NoLora();
  EXPECT_EQ(BackwardFlops(TwoLayers(), ranks, {.rows = 10}, TwoSequences()), 0);
  EXPECT_EQ(BackwardFlops(TwoLayers(), ranks, {.rows = 10, .trained = true}, TwoSequences()),
            kHead);
  SetRank(&ranks, 1, Projection::kDown, 1);
  const double without = BackwardFlops(TwoLayers(), ranks, {}, TwoSequences());
  EXPECT_EQ(BackwardFlops(TwoLayers(), ranks, {.rows = 10}, TwoSequences()), without + kHead);
  EXPECT_EQ(BackwardFlops(TwoLayers(), ranks, {.rows = 10, .trained = true}, TwoSequences()),
            without + 2 * kHead);
}

TEST(FlopsTest, AStepOfSmolLm2TakesWhatTheBenchmarkCounts) {
  ModelConfig config;
  config.hidden_size = 576;
  config.layer_count = 30;
  config.head_count = 9;
  config.kv_head_count = 3;
  config.head_dim = 64;
  config.ffn_size = 1536;
  LoraRanks ranks(30);
  for (auto& layer : ranks) layer.fill(16);
  BatchWork batch;
  for (int64_t tokens : {63, 40, 192}) batch.Add(tokens, 1);
  // "computed" of forward_flops and step_flops in tests/bench/harness/flops.py.
  EXPECT_EQ(ForwardFlops(config, ranks, {.rows = 128}, batch), 64931427072.0);
  EXPECT_EQ(ForwardFlops(config, ranks, {.rows = 128, .trained = true}, batch) +
                BackwardFlops(config, ranks, {.rows = 128, .trained = true}, batch),
            133749985536.0);
}

}  // namespace
}  // namespace pricer
