#include "trainer/step_memory.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>

#include <utility>

#include "tests/testing/counting_allocator.h"
#include "tests/testing/golden.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/tiny_model.h"
#include "trainer/trainer.h"

namespace pricer {
namespace {

using testing::CountingAllocator;
using testing::StatusIs;
using testing::TempDir;

// Threads need not be at their peaks together.
constexpr double kTolerance = 0.05;

struct Case {
  std::string name;
  int64_t tokens = 512;
  int64_t sequences = 8;
  int64_t rank = 8;
  at::ScalarType dtype = at::kFloat;
  int64_t bins = 32;    // 0 = the token head
  int64_t answers = 1;  // of a sequence
  double dropout = 0;
  std::vector<std::string> targets = {"all-linear"};
  bool cosine_head = true;
  std::vector<int64_t> layers = {};
  int64_t recomputed_layers = 0;
};

void PrintTo(const Case& test, std::ostream* out) { *out << test.name; }

class StepMemoryFixture : public ::testing::Test {
 protected:
  // Wide enough that the activations are most of what a step holds.
  static constexpr testing::TinyModelOptions kModel = {.hidden_size = 128,
                                                       .ffn_size = 320,
                                                       .layer_count = 5,
                                                       .head_count = 4,
                                                       .kv_head_count = 2,
                                                       .vocabulary_size = 500};

  static void SetUpTestSuite() {
    dir_ = new TempDir;
    ASSERT_OK(testing::WriteTinyCheckpoint(dir_->File("base"), kModel));
  }
  static void TearDownTestSuite() { delete std::exchange(dir_, nullptr); }

  void SetUp() override { ASSERT_OK_AND_ASSIGN(checkpoint_, Checkpoint::Open(dir_->File("base"))); }

  PeftConfig ConfigOf(const Case& test) const {
    PeftConfig config;
    config.task = test.bins > 0 ? PeftTask::kSeqCls : PeftTask::kCausalLm;
    config.r = test.rank;
    config.alpha = 8;
    config.dropout = test.dropout;
    config.target_modules = test.targets;
    config.layers_to_transform = test.layers;
    return config;
  }

  static std::vector<Example> Examples(const Case& test) {
    std::vector<Example> examples(test.sequences);
    for (int64_t b = 0; b < test.sequences; ++b) {
      const int64_t tokens =
          (b + 1) * test.tokens / test.sequences - b * test.tokens / test.sequences;
      for (int64_t t = 0; t < tokens; ++t) {
        examples[b].ids.push_back(static_cast<int32_t>(3 + (b * 31 + t * 17) % 200));
      }
      examples[b].price = 10.0 + static_cast<double>(b);
      if (test.bins > 0) continue;
      examples[b].ids.push_back(5);
      examples[b].completion_tokens = test.answers;
    }
    return examples;
  }

  static MicroBatch Batch(const Case& test, const std::vector<Example>& examples) {
    std::vector<int64_t> indices;
    for (int64_t b = 0; b < test.sequences; ++b) indices.push_back(b);
    const BinsSpec bins{.bins = static_cast<int>(test.bins), .min_price = 5, .max_price = 400};
    return test.bins > 0 ? MakeBinsMicroBatch(examples, indices, bins)
                         : MakeTokenMicroBatch(examples, indices);
  }

  static BatchShape ShapeOf(const Case& test) {
    return {.tokens = test.tokens,
            .sequences = test.sequences,
            .answers = test.sequences * test.answers,
            .element_bytes = test.dtype == at::kFloat ? 4 : 2,
            .threads = at::get_num_threads(),
            .recomputed_layers = test.recomputed_layers};
  }

  HeadBasis BasisOf(const Case& test) const {
    return test.bins > 0 && test.cosine_head
               ? HeadBasis::Cosine(test.bins, at::ones({kModel.hidden_size}))
               : HeadBasis::Rows();
  }

  CountingAllocator counter_;  // outlives all tensors
  static inline TempDir* dir_ = nullptr;
  std::unique_ptr<Checkpoint> checkpoint_;
};

class StepMemoryTest : public StepMemoryFixture, public ::testing::WithParamInterface<Case> {};

TEST_P(StepMemoryTest, PeakOfATrainingStepIsWhatTheAllocatorCounts) {
  const Case& test = GetParam();
  const auto network = testing::LoadNetwork(*checkpoint_, WeightsKind::kFp32, test.dtype);
  const std::vector<Example> examples = Examples(test);
  const HeadBasis basis = BasisOf(test);
  ASSERT_OK_AND_ASSIGN(PeftAdapter adapter, MakeAdapter(ConfigOf(test), network->config(),
                                                        static_cast<int>(test.bins), /*seed=*/3));
  ASSERT_OK_AND_ASSIGN(const auto trainer,
                       Trainer::Create(network.get(), std::move(adapter),
                                       {.recomputed_layers = test.recomputed_layers}, basis));
  trainer->PlanSteps(10);
  const auto train_step = [&] { ASSERT_OK(trainer->TrainStep({Batch(test, examples)})); };

  // The first step leaves the weights' second layout behind.
  const int64_t at_first = counter_.live_bytes();
  train_step();
  const int64_t before = counter_.live_bytes();
  counter_.ResetPeak();
  train_step();
  ASSERT_OK_AND_ASSIGN(AdapterShape shape,
                       AdapterShape::Of(ConfigOf(test), network->config(), test.bins));
  shape.cosine_head = test.cosine_head;
  const StepMemory memory = PredictStepMemory(network->config(), shape, ShapeOf(test));
  const auto counted = static_cast<double>(counter_.peak_bytes() - before);
  EXPECT_NEAR(static_cast<double>(memory.peak_bytes()), counted, kTolerance * counted);
  EXPECT_EQ(memory.gradient_weight_bytes, before - at_first);
}

TEST_F(StepMemoryFixture, RecomputedLayersLeaveLess) {
  const Case test{.name = "", .tokens = 2048, .sequences = 16};
  ASSERT_OK_AND_ASSIGN(const AdapterShape shape,
                       AdapterShape::Of(ConfigOf(test), checkpoint_->config(), test.bins));
  EXPECT_EQ(shape.RecomputableLayers(), kModel.layer_count - 1);
  BatchShape batch = ShapeOf(test);
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
  const Case& test = GetParam();
  const auto network = testing::LoadNetwork(*checkpoint_, WeightsKind::kFp32, test.dtype);
  const std::vector<Example> examples = Examples(test);
  ASSERT_OK_AND_ASSIGN(const PeftAdapter adapter,
                       MakeAdapter(ConfigOf(test), network->config(), static_cast<int>(test.bins),
                                   /*seed=*/3));
  const AdapterWeights* const weights = &adapter.weights;
  const int64_t before = counter_.live_bytes();
  counter_.ResetPeak();
  {
    const at::NoGradGuard no_grad;
    MicroBatch step = Batch(test, examples);
    step.targets = at::Tensor();
    counter_.ResetPeak();
    const at::Tensor hidden = network->Forward(step.batch, {&weights, 1});
    const at::Tensor logits =
        test.bins > 0 ? Network::BinLogits(hidden, weights->score) : network->Logits(hidden);
  }
  ASSERT_OK_AND_ASSIGN(const AdapterShape shape,
                       AdapterShape::Of(ConfigOf(test), network->config(), test.bins));
  const int64_t predicted = PredictForwardMemory(network->config(), shape, ShapeOf(test));
  const auto counted = static_cast<double>(counter_.peak_bytes() - before);
  EXPECT_NEAR(static_cast<double>(predicted), counted, kTolerance * counted);
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
        Case{.name = "Plain"}, Case{.name = "Long", .tokens = 2048, .sequences = 16},
        Case{.name = "OneSequence", .tokens = 900, .sequences = 1},
        Case{.name = "ManySequences", .tokens = 600, .sequences = 100},
        Case{.name = "FewTokens", .tokens = 24, .sequences = 2},
        Case{.name = "Bf16", .dtype = at::kBFloat16},
        Case{.name = "Bf16Long", .tokens = 2048, .sequences = 16, .dtype = at::kBFloat16},
        Case{.name = "Bf16Padded", .tokens = 1003, .sequences = 9, .dtype = at::kBFloat16},
        Case{.name = "HighRank", .rank = 64}, Case{.name = "RankOne", .rank = 1},
        Case{.name = "HighRankBf16", .rank = 64, .dtype = at::kBFloat16},
        Case{.name = "Dropout", .dropout = 0.1},
        Case{.name = "DropoutBf16", .dtype = at::kBFloat16, .dropout = 0.1},
        Case{.name = "AttentionOnly", .targets = {"q_proj", "k_proj", "v_proj", "o_proj"}},
        Case{.name = "DownOnly", .targets = {"down_proj"}},
        Case{.name = "UpperLayers", .layers = {3, 4}}, Case{.name = "ManyBins", .bins = 512},
        Case{.name = "PlainRows", .cosine_head = false},
        Case{.name = "TokenHead", .bins = 0, .answers = 5},
        Case{.name = "TokenHeadManyAnswers",
             .tokens = 600,
             .sequences = 100,
             .bins = 0,
             .answers = 4},
        Case{.name = "TokenHeadBf16", .dtype = at::kBFloat16, .bins = 0, .answers = 5},
        Case{.name = "OneRecomputed", .recomputed_layers = 1},
        Case{.name = "HalfRecomputedLong", .tokens = 2048, .sequences = 16, .recomputed_layers = 2},
        Case{.name = "AllRecomputed", .recomputed_layers = 4},
        Case{.name = "AllRecomputedLong", .tokens = 2048, .sequences = 16, .recomputed_layers = 4},
        Case{.name = "RecomputedBf16",
             .tokens = 2048,
             .sequences = 16,
             .dtype = at::kBFloat16,
             .recomputed_layers = 4},
        Case{.name = "RecomputedHighRank", .rank = 64, .recomputed_layers = 4},
        Case{.name = "RecomputedHighRankBf16",
             .tokens = 2048,
             .sequences = 16,
             .rank = 64,
             .dtype = at::kBFloat16,
             .recomputed_layers = 4},
        Case{.name = "RecomputedDropout", .dropout = 0.1, .recomputed_layers = 4},
        Case{.name = "RecomputedDropoutBf16",
             .tokens = 2048,
             .sequences = 16,
             .dtype = at::kBFloat16,
             .dropout = 0.1,
             .recomputed_layers = 3},
        Case{.name = "RecomputedUpperLayers", .layers = {2, 4}, .recomputed_layers = 2},
        Case{.name = "RecomputedTokenHead", .bins = 0, .answers = 5, .recomputed_layers = 4},
        Case{.name = "RecomputedOneSequence",
             .tokens = 900,
             .sequences = 1,
             .recomputed_layers = 4}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace pricer
