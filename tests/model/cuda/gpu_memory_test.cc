#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "model/adapter.h"
#include "model/network.h"
#include "tests/testing/counting_allocator.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/test_gpu.h"
#include "tests/testing/tiny_model.h"

namespace pricer {
namespace {

constexpr int64_t kTokens = 256;

// Outlives all tensors.
testing::CountingAllocator& Allocator() {
  static auto* const allocator = new testing::CountingAllocator;
  return *allocator;
}

// What a forward pass leaves behind for its gradients.
int64_t KeptBytes(const testing::TestGpu& gpu, int64_t layers) {
  const testing::TempDir directory;
  EXPECT_OK(testing::WriteTinyCheckpoint(directory.path(), {.layer_count = layers}));
  const auto checkpoint = Checkpoint::Open(directory.path());
  EXPECT_OK(checkpoint);
  PeftConfig peft;
  peft.target_modules = {"all-linear"};
  const auto adapter = MakeAdapter(peft, (*checkpoint)->config(), /*bins=*/16, /*seed=*/1);
  EXPECT_OK(adapter);
  const auto network = Network::Load(
      **checkpoint,
      {.weights = WeightsKind::kBf16, .dtype = at::kBFloat16, .device = gpu.device()});
  EXPECT_OK(network);
  const AdapterWeights weights = CopyTo(adapter->weights, gpu.device());
  for (const auto& layer : weights.layers) {
    for (const LoraWeights& linear : layer) linear.a.set_requires_grad(true);
  }
  const AdapterWeights* const adapters[] = {&weights};
  const std::vector<int32_t> ids(kTokens, 5);
  const PackedBatch batch = Pack({{ids, 0}});
  const int64_t before = Allocator().live_bytes();
  const at::Tensor hidden = (*network)->Forward(batch, adapters);
  return Allocator().live_bytes() - before;
}

// In bf16, of each token: both sums of the residual stream, 2 H; queries, keys and values, and what
// attention makes of them, 3 H as there are half as many key heads; gate and up, 2 F. A few more
// bytes are the log-sum-exp, LoRA's states and copies of its weights. Neither normalized inputs,
// 2 H, nor the product of gate and up, F, are kept: they are made again.
TEST(GpuMemoryTest, KeepsForGradientsWhatIsNotCheapToMakeAgain) {
  PRICER_ENTER_GPU(gpu);
  if (!gpu->emulated()) GTEST_SKIP() << "counts what the CPU's allocator gives";
  Allocator();
  constexpr int64_t kHidden = 64;
  constexpr int64_t kFfn = 128;
  const int64_t of_layer = (KeptBytes(*gpu, 4) - KeptBytes(*gpu, 2)) / 2;
  const double of_token = static_cast<double>(of_layer) / kTokens;
  constexpr double kNeeded = 2.0 * (5 * kHidden + 2 * kFfn);
  EXPECT_GE(of_token, kNeeded);
  EXPECT_LT(of_token, 1.25 * kNeeded);
}

}  // namespace
}  // namespace pricer
