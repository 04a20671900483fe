#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>

#include <memory>
#include <utility>

#include "model/cuda/device.h"
#include "tests/testing/counting_allocator.h"
#include "tests/testing/golden.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/test_gpu.h"
#include "tests/trainer/step_case.h"
#include "trainer/memory_plan.h"
#include "trainer/trainer.h"

// What `inspect` predicts of a GPU against what its allocator counts.

namespace pricer {
namespace {

using testing::kMemoryTolerance;
using testing::StepCase;

// Small, since what stands in for a GPU is slow.
constexpr testing::TinyModelOptions kModel = {
    .hidden_size = 64, .ffn_size = 192, .layer_count = 3, .vocabulary_size = 300};

class GpuMemoryTest : public ::testing::Test {
 protected:
  void Open(const testing::TinyModelOptions& model) {
    ASSERT_OK(testing::WriteTinyCheckpoint(dir_.File("base"), model));
    ASSERT_OK_AND_ASSIGN(checkpoint_, Checkpoint::Open(dir_.File("base")));
  }

  static absl::StatusOr<std::unique_ptr<Network>> Load(const Checkpoint& checkpoint,
                                                       at::Device device, bool keep_nf4) {
    return Network::Load(checkpoint, {.weights = WeightsKind::kNf4,
                                      .dtype = at::kBFloat16,
                                      .device = device,
                                      .keep_nf4 = keep_nf4});
  }

  static BatchShape ShapeOf(const StepCase& test) {
    BatchShape shape = test.Shape();
    shape.element_bytes = 2;
    shape.on_gpu = true;
    return shape;
  }

  // Bytes that are held now; what was the peak is forgotten.
  static int64_t LiveBytes(at::Device device) {
    cuda::TakePeakBytes(device);
    return cuda::TakePeakBytes(device);
  }

  static void ExpectNear(int64_t predicted, int64_t counted) {
    EXPECT_NEAR(static_cast<double>(predicted), static_cast<double>(counted),
                kMemoryTolerance * static_cast<double>(counted));
  }

  testing::CountingAllocator counter_;  // of what only stands in for a GPU; outlives all tensors
  testing::TempDir dir_;
  std::unique_ptr<Checkpoint> checkpoint_;
};

class GpuStepMemoryTest : public GpuMemoryTest, public ::testing::WithParamInterface<StepCase> {};

TEST_P(GpuStepMemoryTest, PeaksOfAStepAndOfAForwardPassAreWhatTheAllocatorCounts) {
  const StepCase& test = GetParam();
  Open(kModel);
  PRICER_ENTER_GPU(gpu);
  const at::Device device = gpu->device();
  ASSERT_OK_AND_ASSIGN(const auto network, Load(*checkpoint_, device, /*keep_nf4=*/true));
  ASSERT_OK_AND_ASSIGN(PeftAdapter adapter, MakeAdapter(test.Config(), network->config(),
                                                        static_cast<int>(test.bins), /*seed=*/3));
  ASSERT_OK_AND_ASSIGN(const auto trainer,
                       Trainer::Create(network.get(), std::move(adapter),
                                       {.recomputed_layers = test.recomputed_layers},
                                       test.Basis(kModel.hidden_size)));
  trainer->PlanSteps(10);
  const std::vector<MicroBatch> step = {test.Batch()};
  // The first step leaves behind what stays: decoded layers, workspaces of cuBLAS.
  ASSERT_OK(trainer->TrainStep(step));
  ASSERT_OK_AND_ASSIGN(AdapterShape shape,
                       AdapterShape::Of(test.Config(), network->config(), test.bins));
  shape.cosine_head = test.cosine_head;

  int64_t before = LiveBytes(device);
  ASSERT_OK(trainer->TrainStep(step));
  ExpectNear(PredictStepMemory(network->config(), shape, ShapeOf(test)).peak_bytes(),
             cuda::TakePeakBytes(device) - before);

  const AdapterWeights weights = network->Place(trainer->CopyWeights());
  before = LiveBytes(device);
  {
    const at::NoGradGuard no_grad;
    const AdapterWeights* const served = &weights;
    const at::Tensor hidden = network->Forward(step[0].batch, {&served, 1});
    const at::Tensor logits =
        test.bins > 0 ? Network::BinLogits(hidden, weights.score) : network->Logits(hidden);
  }
  ExpectNear(PredictForwardMemory(network->config(), shape, ShapeOf(test)),
             cuda::TakePeakBytes(device) - before);
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, GpuStepMemoryTest,
    ::testing::Values(
        StepCase{.name = "Plain", .tokens = 120, .sequences = 3},
        StepCase{.name = "ManySequences", .tokens = 200, .sequences = 40},
        StepCase{.name = "HighRank", .tokens = 120, .sequences = 3, .rank = 40},
        StepCase{.name = "Dropout", .tokens = 120, .sequences = 3, .dropout = 0.1},
        StepCase{.name = "AttentionOnly",
                 .tokens = 120,
                 .sequences = 3,
                 .targets = {"q_proj", "k_proj", "v_proj", "o_proj"}},
        StepCase{.name = "DownOnly", .tokens = 120, .sequences = 3, .targets = {"down_proj"}},
        StepCase{.name = "UpperLayers", .tokens = 120, .sequences = 3, .layers = {1, 2}},
        StepCase{.name = "PlainRows", .tokens = 120, .sequences = 3, .cosine_head = false},
        StepCase{.name = "TokenHead", .tokens = 120, .sequences = 3, .bins = 0, .answers = 5},
        StepCase{.name = "AllRecomputed", .tokens = 120, .sequences = 3, .recomputed_layers = 2},
        StepCase{.name = "RecomputedDropout",
                 .tokens = 120,
                 .sequences = 3,
                 .dropout = 0.1,
                 .recomputed_layers = 1}),
    [](const auto& info) { return info.param.name; });

TEST_F(GpuMemoryTest, ResidentWeightsAreWhatTheNetworkSays) {
  for (const bool tied : {true, false}) {
    Open({.tied_embeddings = tied});
    for (const bool keep_nf4 : {true, false}) {
      PRICER_ENTER_GPU(gpu);
      ASSERT_OK_AND_ASSIGN(const auto network, Load(*checkpoint_, gpu->device(), keep_nf4));
      const std::vector<int32_t> ids = {5, 6, 7};
      network->Forward(Pack({{.ids = ids, .adapter = -1}}), {});  // makes the buffers
      const WeightsPlan plan{
          .element_bytes = 2,
          .place = keep_nf4 ? WeightsPlace::kGpuInNf4 : WeightsPlace::kGpuDecoded};
      const ResidentWeights weights = PredictWeights(*checkpoint_, plan);
      EXPECT_EQ(weights.total(), network->weight_bytes());
      EXPECT_EQ(weights.window > 0, keep_nf4);
    }
  }
}

TEST_F(GpuMemoryTest, OfStoredNf4NothingIsQuantizedAgain) {
  const auto checkpoint = testing::OpenCheckpoint("nf4/checkpoint");
  PRICER_ENTER_GPU(gpu);
  ASSERT_OK_AND_ASSIGN(const auto network, Load(*checkpoint, gpu->device(), /*keep_nf4=*/true));
  const std::vector<int32_t> ids = {5, 6, 7};
  network->Forward(Pack({{.ids = ids, .adapter = -1}}), {});
  const WeightsPlan plan{.element_bytes = 2, .place = WeightsPlace::kGpuInNf4};
  EXPECT_EQ(PredictWeights(*checkpoint, plan).total(), network->weight_bytes());
}

TEST_F(GpuMemoryTest, PeakOfLoadingIsWhatTheAllocatorCounts) {
  Open(kModel);
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  for (const bool keep_nf4 : {true, false}) {
    PRICER_ENTER_GPU(gpu);
    const int64_t before = LiveBytes(gpu->device());
    ASSERT_OK_AND_ASSIGN(const auto network, Load(*checkpoint_, gpu->device(), keep_nf4));
    const WeightsPlan plan{.element_bytes = 2,
                           .place = keep_nf4 ? WeightsPlace::kGpuInNf4 : WeightsPlace::kGpuDecoded};
    ExpectNear(PredictLoadMemory(*checkpoint_, plan).tensor_peak_bytes,
               cuda::TakePeakBytes(gpu->device()) - before);
  }
  at::set_num_threads(threads);
}

}  // namespace
}  // namespace pricer
