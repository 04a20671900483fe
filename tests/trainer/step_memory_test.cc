#include "trainer/step_memory.h"

#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>

#include <utility>

#include "tests/testing/counting_allocator.h"
#include "tests/testing/golden.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/tiny_model.h"
#include "tests/trainer/step_case.h"
#include "trainer/trainer.h"

namespace pricer {
namespace {

using testing::CountingAllocator;
using testing::kMemoryTolerance;
using testing::kStepModel;
using testing::StatusIs;
using testing::StepCase;
using testing::TempDir;

class StepMemoryFixture : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    dir_ = new TempDir;
    ASSERT_OK(testing::WriteTinyCheckpoint(dir_->File("base"), kStepModel));
  }
  static void TearDownTestSuite() { delete std::exchange(dir_, nullptr); }

  void SetUp() override { ASSERT_OK_AND_ASSIGN(checkpoint_, Checkpoint::Open(dir_->File("base"))); }

  CountingAllocator counter_;  // outlives all tensors
  static inline TempDir* dir_ = nullptr;
  std::unique_ptr<Checkpoint> checkpoint_;
};

class StepMemoryTest : public StepMemoryFixture, public ::testing::WithParamInterface<StepCase> {};

TEST_P(StepMemoryTest, PeakOfATrainingStepIsWhatTheAllocatorCounts) {
  const StepCase& test = GetParam();
  const auto network = testing::LoadNetwork(*checkpoint_, WeightsKind::kFp32, test.dtype);
  const HeadBasis basis = test.Basis();
  ASSERT_OK_AND_ASSIGN(PeftAdapter adapter, MakeAdapter(test.Config(), network->config(),
                                                        static_cast<int>(test.bins), /*seed=*/3));
  ASSERT_OK_AND_ASSIGN(const auto trainer,
                       Trainer::Create(network.get(), std::move(adapter),
                                       {.recomputed_layers = test.recomputed_layers}, basis));
  trainer->PlanSteps(10);
  const auto train_step = [&] { ASSERT_OK(trainer->TrainStep({test.Batch()})); };

  // The first step leaves the weights' second layout behind.
  const int64_t at_first = counter_.live_bytes();
  train_step();
  const int64_t before = counter_.live_bytes();
  counter_.ResetPeak();
  train_step();
  ASSERT_OK_AND_ASSIGN(AdapterShape shape,
                       AdapterShape::Of(test.Config(), network->config(), test.bins));
  shape.cosine_head = test.cosine_head;
  const StepMemory memory = PredictStepMemory(network->config(), shape, test.Shape());
  const auto counted = static_cast<double>(counter_.peak_bytes() - before);
  EXPECT_NEAR(static_cast<double>(memory.peak_bytes()), counted, kMemoryTolerance * counted);
  EXPECT_EQ(memory.gradient_weight_bytes, before - at_first);
}

TEST_F(StepMemoryFixture, RecomputedLayersLeaveLess) {
  const StepCase test{.name = "", .tokens = 2048, .sequences = 16};
  ASSERT_OK_AND_ASSIGN(const AdapterShape shape,
                       AdapterShape::Of(test.Config(), checkpoint_->config(), test.bins));
  EXPECT_EQ(shape.RecomputableLayers(), kStepModel.layer_count - 1);
  BatchShape batch = test.Shape();
  int64_t before = PredictStepMemory(checkpoint_->config(), shape, batch).peak_bytes();
  // The last of them is computed once more while nothing else is kept any longer.
  for (batch.recomputed_layers = 1; batch.recomputed_layers < shape.RecomputableLayers();
       ++batch.recomputed_layers) {
    const int64_t peak = PredictStepMemory(checkpoint_->config(), shape, batch).peak_bytes();
    EXPECT_LT(peak, before) << batch.recomputed_layers;
    before = peak;
  }
}

TEST_P(StepMemoryTest, PeakOfAForwardPassIsWhatTheAllocatorCounts) {
  const StepCase& test = GetParam();
  const auto network = testing::LoadNetwork(*checkpoint_, WeightsKind::kFp32, test.dtype);
  ASSERT_OK_AND_ASSIGN(const PeftAdapter adapter,
                       MakeAdapter(test.Config(), network->config(), static_cast<int>(test.bins),
                                   /*seed=*/3));
  const AdapterWeights* const weights = &adapter.weights;
  const int64_t before = counter_.live_bytes();
  counter_.ResetPeak();
  {
    const at::NoGradGuard no_grad;
    MicroBatch step = test.Batch();
    step.targets = at::Tensor();
    counter_.ResetPeak();
    const at::Tensor hidden = network->Forward(step.batch, {&weights, 1});
    const at::Tensor logits =
        test.bins > 0 ? Network::BinLogits(hidden, weights->score) : network->Logits(hidden);
  }
  ASSERT_OK_AND_ASSIGN(const AdapterShape shape,
                       AdapterShape::Of(test.Config(), network->config(), test.bins));
  const int64_t predicted = PredictForwardMemory(network->config(), shape, test.Shape());
  const auto counted = static_cast<double>(counter_.peak_bytes() - before);
  EXPECT_NEAR(static_cast<double>(predicted), counted, kMemoryTolerance * counted);
}

TEST(AdapterShapeTest, CountsWhatMakeAdapterMakes) {
  const TempDir dir;
  ASSERT_OK(testing::WriteTinyCheckpoint(dir.File("base")));
  ASSERT_OK_AND_ASSIGN(const auto checkpoint, Checkpoint::Open(dir.File("base")));
  PeftConfig config;
  config.r = 4;
  config.rank_pattern = {{"q_proj", 7}};
  config.layers_to_transform = {1};
  config.target_modules = {"all-linear"};
  ASSERT_OK_AND_ASSIGN(const PeftAdapter adapter,
                       MakeAdapter(config, checkpoint->config(), /*bins=*/16, /*seed=*/1));
  ASSERT_OK_AND_ASSIGN(AdapterShape shape, AdapterShape::Of(config, checkpoint->config(), 16));
  EXPECT_EQ(4 * (shape.LoraValues(checkpoint->config()) + shape.ScoreValues(checkpoint->config())),
            adapter.weights.bytes());
  EXPECT_EQ(shape.HeadValues(checkpoint->config()), 15 * 64);
  shape.cosine_head = false;
  EXPECT_EQ(shape.HeadValues(checkpoint->config()), 16 * 64);
}

TEST(AdapterShapeTest, RefusesWhatMakeAdapterRefuses) {
  const TempDir dir;
  ASSERT_OK(testing::WriteTinyCheckpoint(dir.File("base")));
  ASSERT_OK_AND_ASSIGN(const auto checkpoint, Checkpoint::Open(dir.File("base")));
  PeftConfig config;
  config.target_modules = {"q_proj", "qq_proj"};
  EXPECT_THAT(AdapterShape::Of(config, checkpoint->config(), 16),
              StatusIs(absl::StatusCode::kInvalidArgument, ::testing::HasSubstr("qq_proj")));
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, StepMemoryTest,
    ::testing::Values(
        StepCase{.name = "Plain"}, StepCase{.name = "Long", .tokens = 2048, .sequences = 16},
        StepCase{.name = "OneSequence", .tokens = 900, .sequences = 1},
        StepCase{.name = "ManySequences", .tokens = 600, .sequences = 100},
        StepCase{.name = "FewTokens", .tokens = 24, .sequences = 2},
        StepCase{.name = "Bf16", .dtype = at::kBFloat16},
        StepCase{.name = "Bf16Long", .tokens = 2048, .sequences = 16, .dtype = at::kBFloat16},
        StepCase{.name = "Bf16Padded", .tokens = 1003, .sequences = 9, .dtype = at::kBFloat16},
        StepCase{.name = "HighRank", .rank = 64}, StepCase{.name = "RankOne", .rank = 1},
        StepCase{.name = "HighRankBf16", .rank = 64, .dtype = at::kBFloat16},
        StepCase{.name = "Dropout", .dropout = 0.1},
        StepCase{.name = "DropoutBf16", .dtype = at::kBFloat16, .dropout = 0.1},
        StepCase{.name = "AttentionOnly", .targets = {"q_proj", "k_proj", "v_proj", "o_proj"}},
        StepCase{.name = "DownOnly", .targets = {"down_proj"}},
        StepCase{.name = "UpperLayers", .layers = {3, 4}},
        StepCase{.name = "ManyBins", .bins = 512},
        StepCase{.name = "PlainRows", .cosine_head = false},
        StepCase{.name = "TokenHead", .bins = 0, .answers = 5},
        StepCase{.name = "TokenHeadManyAnswers",
                 .tokens = 600,
                 .sequences = 100,
                 .bins = 0,
                 .answers = 4},
        StepCase{.name = "TokenHeadBf16", .dtype = at::kBFloat16, .bins = 0, .answers = 5},
        StepCase{.name = "OneRecomputed", .recomputed_layers = 1},
        StepCase{
            .name = "HalfRecomputedLong", .tokens = 2048, .sequences = 16, .recomputed_layers = 2},
        StepCase{.name = "AllRecomputed", .recomputed_layers = 4},
        StepCase{
            .name = "AllRecomputedLong", .tokens = 2048, .sequences = 16, .recomputed_layers = 4},
        StepCase{.name = "RecomputedBf16",
                 .tokens = 2048,
                 .sequences = 16,
                 .dtype = at::kBFloat16,
                 .recomputed_layers = 4},
        StepCase{.name = "RecomputedHighRank", .rank = 64, .recomputed_layers = 4},
        StepCase{.name = "RecomputedHighRankBf16",
                 .tokens = 2048,
                 .sequences = 16,
                 .rank = 64,
                 .dtype = at::kBFloat16,
                 .recomputed_layers = 4},
        StepCase{.name = "RecomputedDropout", .dropout = 0.1, .recomputed_layers = 4},
        StepCase{.name = "RecomputedDropoutBf16",
                 .tokens = 2048,
                 .sequences = 16,
                 .dtype = at::kBFloat16,
                 .dropout = 0.1,
                 .recomputed_layers = 3},
        StepCase{.name = "RecomputedUpperLayers", .layers = {2, 4}, .recomputed_layers = 2},
        StepCase{.name = "RecomputedTokenHead", .bins = 0, .answers = 5, .recomputed_layers = 4},
        StepCase{.name = "RecomputedOneSequence",
                 .tokens = 900,
                 .sequences = 1,
                 .recomputed_layers = 4}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace pricer
