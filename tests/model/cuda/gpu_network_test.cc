#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "model/adapter.h"
#include "model/network.h"
#include "model/ops/cross_entropy.h"
#include "tests/testing/golden.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/test_gpu.h"
#include "tests/testing/tiny_model.h"

// The whole network on a GPU against the CPU's, in bf16, and against transformers.

namespace pricer {
namespace {

using testing::GoldenJson;
using testing::GoldenPath;
using testing::GoldenSequences;
using testing::GoldenTensors;
using testing::LoadNetwork;
using testing::MaxAbsDifference;
using testing::OpenCheckpoint;
using testing::PackAll;
using testing::TestGpu;

std::unique_ptr<Network> LoadOnGpu(const Checkpoint& checkpoint, WeightsKind weights,
                                   const TestGpu& gpu, bool keep_nf4 = false) {
  absl::StatusOr<std::unique_ptr<Network>> network = Network::Load(
      checkpoint,
      {.weights = weights, .dtype = at::kBFloat16, .device = gpu.device(), .keep_nf4 = keep_nf4});
  EXPECT_OK(network);
  return *std::move(network);
}

AdapterWeights OnGpu(const AdapterWeights& weights, const TestGpu& gpu) {
  return CopyTo(weights, gpu.device());
}

// Largest difference, relative to the largest value.
double RelativeDifference(const at::Tensor& a, const at::Tensor& b) {
  return MaxAbsDifference(a.to(at::kFloat), b.to(at::kFloat)) /
         b.to(at::kFloat).abs().max().item<double>();
}

// As near to fp32 as a CPU's bf16 is, give or take.
void ExpectNear(const at::Tensor& actual, const at::Tensor& on_cpu, const at::Tensor& exact,
                const std::string& what) {
  const double difference = RelativeDifference(actual, exact);
  EXPECT_LE(difference, 2 * RelativeDifference(on_cpu, exact) + 0x1p-8) << what;
  EXPECT_LE(difference, 0.15) << what;
}

class GpuNetworkTest : public ::testing::TestWithParam<std::string> {};

TEST_P(GpuNetworkTest, LastHiddenStatesAndLogitsAreTransformers) {
  const at::NoGradGuard no_grad;
  const std::string folder = "models/" + GetParam();
  const auto checkpoint = OpenCheckpoint(folder);
  const GoldenTensors golden(folder + "/golden.safetensors");
  const auto sequences = GoldenSequences(GoldenJson(folder + "/golden.json"));
  const auto on_cpu = LoadNetwork(*checkpoint, WeightsKind::kFp32, at::kBFloat16);
  const at::Tensor hidden_on_cpu = on_cpu->Forward(PackAll(sequences), {});
  const at::Tensor logits_on_cpu = on_cpu->Logits(hidden_on_cpu);
  PRICER_ENTER_GPU(gpu);
  const auto network = LoadOnGpu(*checkpoint, WeightsKind::kFp32, *gpu);
  const at::Tensor hidden = network->Forward(PackAll(sequences), {});
  ExpectNear(hidden.cpu(), hidden_on_cpu, golden.Get("last_hidden"), "hidden states");
  ExpectNear(network->Logits(hidden).cpu(), logits_on_cpu, golden.Get("last_logits"), "logits");
}

INSTANTIATE_TEST_SUITE_P(Golden, GpuNetworkTest,
                         ::testing::Values("gqa", "tied", "mqa", "llama3-rope", "rope-v4", "odd",
                                           "sharded", "bf16"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(GpuNetworkTest, WeightsThatStayInNf4GiveTheSameBits) {
  const at::NoGradGuard no_grad;
  for (const std::string folder : {"models/gqa", "models/odd", "nf4/checkpoint"}) {
    const auto checkpoint = OpenCheckpoint(folder);
    PRICER_ENTER_GPU(gpu);
    const auto resident = LoadOnGpu(*checkpoint, WeightsKind::kNf4, *gpu);
    const auto kept = LoadOnGpu(*checkpoint, WeightsKind::kNf4, *gpu, /*keep_nf4=*/true);
    const PackedBatch batch = PackAll({{5, 6, 7}, {9, 8}, {11}});
    const at::Tensor expected = resident->Forward(batch, {}).cpu();
    for (int round = 0; round < 2; ++round) {
      EXPECT_TRUE(at::equal(kept->Forward(batch, {}).cpu(), expected)) << folder;
    }
    EXPECT_LT(kept->Linears()[0][0][0]->device_weight()->bytes(),
              resident->Linears()[0][0][0]->device_weight()->bytes());
  }
}

TEST(GpuNetworkTest, ABatchOfSeveralAdaptersGivesWhatEachGivesAlone) {
  const at::NoGradGuard no_grad;
  const auto checkpoint = OpenCheckpoint("models/gqa");
  const absl::StatusOr<PeftAdapter> all =
      LoadPeftAdapter(GoldenPath("adapters/causal-all-linear"), checkpoint->config());
  ASSERT_OK(all);
  const auto sequences = GoldenSequences(GoldenJson("models/gqa/golden.json"));
  const auto on_cpu = LoadNetwork(*checkpoint, WeightsKind::kFp32, at::kBFloat16);
  const AdapterWeights* const here[] = {&all->weights};
  const PackedBatch batch = Pack({{sequences[0], -1}, {sequences[1], 0}, {sequences[2], 0}});
  const at::Tensor expected = on_cpu->Forward(batch, here);
  const at::Tensor exact = LoadNetwork(*checkpoint, WeightsKind::kFp32)->Forward(batch, here);
  PRICER_ENTER_GPU(gpu);
  const auto network = LoadOnGpu(*checkpoint, WeightsKind::kFp32, *gpu);
  const AdapterWeights weights = OnGpu(all->weights, *gpu);
  const AdapterWeights* const there[] = {&weights};
  const at::Tensor mixed = network->Forward(batch, there).cpu();
  ExpectNear(mixed, expected, exact, "mixed");
  const at::Tensor alone = network->Forward(Pack({{sequences[1], 0}}), there).cpu();
  EXPECT_LE(RelativeDifference(mixed.narrow(0, 1, 1), alone), 1e-2);
}

TEST(GpuNetworkTest, NodesGiveWhatTheirWholeSequencesGive) {
  const at::NoGradGuard no_grad;
  const auto checkpoint = OpenCheckpoint("models/gqa");
  const auto all = GoldenSequences(GoldenJson("models/gqa/golden.json"));
  PRICER_ENTER_GPU(gpu);
  const auto network = LoadOnGpu(*checkpoint, WeightsKind::kFp32, *gpu);
  const PackedBatch batch = Pack({{all[3], -1}, {all[1], -1}});
  KvCache cache;
  network->Forward(batch, {}, &cache);
  const at::Tensor first = network->ForwardNodes(
      {.ids = {11, 12, 13}, .offsets = {0, 2, 3}, .ancestors = {}}, {}, &cache);
  const at::Tensor second = network->ForwardLeaves(
      {.ids = {21, 22}, .offsets = {0, 1, 2}, .ancestors = {{1, 2}}}, {}, cache);
  const auto whole = [&](size_t prompt, std::vector<int32_t> path) {
    std::vector<int32_t> ids = prompt == 0 ? all[3] : all[1];
    ids.insert(ids.end(), path.begin(), path.end());
    return network->Forward(PackAll({ids}), {})[0].cpu();
  };
  EXPECT_LE(RelativeDifference(first[1].cpu(), whole(0, {12})), 3e-2) << "a child";
  EXPECT_LE(RelativeDifference(first[2].cpu(), whole(1, {13})), 3e-2) << "a child of the other";
  EXPECT_LE(RelativeDifference(second[0].cpu(), whole(0, {12, 21})), 3e-2) << "a grandchild";
  EXPECT_LE(RelativeDifference(second[1].cpu(), whole(1, {13, 22})), 3e-2)
      << "a grandchild of the other";
}

// Gradients of an adapter's tensors for one step with dropout, in the order of layers.
std::vector<at::Tensor> Gradients(const Network& network, AdapterWeights weights,
                                  const PackedBatch& batch, const at::Tensor& targets,
                                  double dropout, int64_t recomputed, double* loss) {
  std::vector<at::Tensor> leaves;
  for (auto& layer : weights.layers) {
    for (LoraWeights& linear : layer) {
      if (!linear.defined()) continue;
      for (at::Tensor* tensor : {&linear.a, &linear.b}) {
        tensor->set_requires_grad(true);
        leaves.push_back(*tensor);
      }
    }
  }
  const AdapterWeights* const pointers[] = {&weights};
  const LoraDropout drop{.probability = dropout, .seed = 3, .step = 1, .rows = {4, 9, 2}};
  const at::Tensor hidden = network.Forward(batch, pointers, &drop, recomputed);
  const at::Tensor sum = CrossEntropySum(network.Logits(hidden), targets) / 3.0;
  *loss = sum.item<double>();
  sum.backward();
  std::vector<at::Tensor> gradients;
  for (const at::Tensor& leaf : leaves) gradients.push_back(leaf.grad().cpu());
  return gradients;
}

TEST(GpuNetworkTest, GradientsOfATrainingStepAreTheCpus) {
  const auto checkpoint = OpenCheckpoint("models/gqa");
  const absl::StatusOr<PeftAdapter> adapter =
      LoadPeftAdapter(GoldenPath("adapters/causal-all-linear"), checkpoint->config());
  ASSERT_OK(adapter);
  const auto sequences = GoldenSequences(GoldenJson("models/gqa/golden.json"));
  const PackedBatch batch = Pack({{sequences[3], 0}, {sequences[1], 0}, {sequences[2], 0}});
  const at::Tensor targets = at::tensor({3, 5, 7}, at::kLong);
  const auto on_cpu = LoadNetwork(*checkpoint, WeightsKind::kNf4, at::kBFloat16);
  double expected_loss = 0;
  const auto in_fp32 = LoadNetwork(*checkpoint, WeightsKind::kNf4);
  const std::vector<at::Tensor> exact = Gradients(*in_fp32, CopyTo(adapter->weights, at::kCPU),
                                                  batch, targets, 0.2, 0, &expected_loss);
  const std::vector<at::Tensor> expected = Gradients(*on_cpu, CopyTo(adapter->weights, at::kCPU),
                                                     batch, targets, 0.2, 0, &expected_loss);
  PRICER_ENTER_GPU(gpu);
  for (bool keep_nf4 : {false, true}) {
    const auto network = LoadOnGpu(*checkpoint, WeightsKind::kNf4, *gpu, keep_nf4);
    for (int64_t recomputed : {0, 1}) {
      double loss = 0;
      const std::vector<at::Tensor> gradients =
          Gradients(*network, OnGpu(adapter->weights, *gpu), batch, targets.to(gpu->device()), 0.2,
                    recomputed, &loss);
      EXPECT_NEAR(loss, expected_loss, 1e-2 * expected_loss);
      ASSERT_EQ(gradients.size(), expected.size());
      for (size_t i = 0; i < expected.size(); ++i) {
        ExpectNear(gradients[i], expected[i], exact[i], "gradient " + std::to_string(i));
      }
    }
  }
}

}  // namespace
}  // namespace pricer
