#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "model/ops/adamw_kernel.h"
#include "model/ops/cross_entropy_kernel.h"
#include "tests/testing/kernel_device.h"

// What ends a training step: loss, gradient norm and AdamW, against ATen's own.

namespace pricer {
namespace {

class TrainingKernelTest : public KernelTest {
 protected:
  void CheckCrossEntropy(const at::Tensor& logits, const at::Tensor& targets);
};

void TrainingKernelTest::CheckCrossEntropy(const at::Tensor& logits, const at::Tensor& targets) {
  constexpr float kScale = 0.25f;
  const at::Tensor leaf = logits.clone().set_requires_grad(true);
  const at::Tensor log_probabilities = at::log_softmax(leaf, -1);
  const bool soft = targets.dim() == 2;
  const at::Tensor expected =
      soft ? -at::where(targets == 0, at::zeros({}), targets * log_probabilities).sum(1)
           : -log_probabilities.gather(1, targets.unsqueeze(1)).squeeze(1);
  (expected.sum() * kScale).backward();

  const at::Tensor logits_there = Put(logits);
  const at::Tensor targets_there = Put(targets);
  const at::Tensor loss = Poisoned({logits.size(0)}, at::kFloat);
  const at::Tensor grad = Poisoned(logits.sizes(), at::kFloat);
  cuda::CrossEntropyParams params{.rows = logits.size(0),
                                  .classes = logits.size(1),
                                  .logits = Elements<float>(logits_there),
                                  .grad_scale = kScale,
                                  .loss = Elements<float>(loss),
                                  .grad_logits = Elements<float>(grad)};
  if (soft) {
    params.probabilities = Elements<float>(targets_there);
  } else {
    params.labels = Elements<int64_t>(targets_there);
  }
  ASSERT_EQ(cuda::LaunchCrossEntropy(params, stream()), cudaSuccess);
  EXPECT_TRUE(at::allclose(Get(loss), expected.detach(), 1e-5, 1e-5)) << logits.sizes();
  EXPECT_TRUE(at::allclose(Get(grad), leaf.grad(), 1e-5, 1e-6)) << logits.sizes();
  params.grad_logits = nullptr;
  ASSERT_EQ(cuda::LaunchCrossEntropy(params, stream()), cudaSuccess);
  EXPECT_TRUE(at::allclose(Get(loss), expected.detach(), 1e-5, 1e-5)) << logits.sizes();
}

TEST_P(TrainingKernelTest, CrossEntropyTowardsADistribution) {
  for (const auto& [rows, classes] :
       {std::pair<int64_t, int64_t>{1, 2}, {3, 7}, {5, 128}, {2, 700}}) {
    CheckCrossEntropy(at::randn({rows, classes}) * 4, at::softmax(at::randn({rows, classes}), 1));
  }
}

TEST_P(TrainingKernelTest, CrossEntropyTowardsAClass) {
  for (const auto& [rows, classes] : {std::pair<int64_t, int64_t>{1, 2}, {4, 257}, {2, 5003}}) {
    CheckCrossEntropy(at::randn({rows, classes}) * 4, at::randint(classes, {rows}, at::kLong));
  }
}

TEST_P(TrainingKernelTest, CrossEntropyOfHugeLogitsAndOfImpossibleClasses) {
  at::Tensor logits = at::randn({200, 40}) * 300;
  logits[0][3] = -std::numeric_limits<float>::infinity();
  at::Tensor targets = at::softmax(at::randn({200, 40}), 1);
  targets[0][3] = 0;
  CheckCrossEntropy(logits, targets);
}

// Probabilities of a half and less, of logits whose own rounding is coarser than those.
TEST_P(TrainingKernelTest, CrossEntropyOfLogitsFarFromZero) {
  const at::Tensor logits = at::randn({200, 40}) + 1000;
  CheckCrossEntropy(logits, at::softmax(at::randn({200, 40}), 1));
}

// Tensors of an adapter and what the optimizer keeps of them.
struct Tuned {
  std::vector<at::Tensor> parameters, gradients, first, second;
};

Tuned RandomTuned(const std::vector<int64_t>& sizes) {
  Tuned tuned;
  for (int64_t size : sizes) {
    tuned.parameters.push_back(at::randn({size}));
    tuned.gradients.push_back(at::randn({size}) * 0.3);
    tuned.first.push_back(at::randn({size}) * 0.1);
    tuned.second.push_back(at::rand({size}) * 0.1);
  }
  return tuned;
}

TEST_P(TrainingKernelTest, AdamWIsTorchs) {
  constexpr double kMaxNorm = 2.0;
  const std::vector<int64_t> sizes = {1, 5, 4096, 4097, 10000};
  const std::vector<double> rates = {2e-3, 5e-4};
  const Tuned tuned = RandomTuned(sizes);
  Tuned there;
  std::vector<cuda::AdamWTensor> entries;
  std::vector<int32_t> chunk_tensor, tensor_chunk;
  for (size_t t = 0; t < sizes.size(); ++t) {
    there.parameters.push_back(Put(tuned.parameters[t]));
    there.gradients.push_back(Put(tuned.gradients[t]));
    there.first.push_back(Put(tuned.first[t]));
    there.second.push_back(Put(tuned.second[t]));
    entries.push_back({.parameter = Elements<float>(there.parameters[t]),
                       .gradient = Elements<float>(there.gradients[t]),
                       .first_moment = Elements<float>(there.first[t]),
                       .second_moment = Elements<float>(there.second[t]),
                       .count = sizes[t],
                       .group = t == 0 ? 1 : 0});
    for (int32_t c = 0; c * cuda::kAdamWChunk < sizes[t]; ++c) {
      chunk_tensor.push_back(static_cast<int32_t>(t));
      tensor_chunk.push_back(c);
    }
  }
  at::Tensor entry_bytes =
      at::empty({static_cast<int64_t>(entries.size() * sizeof(entries[0]))}, at::kByte);
  std::memcpy(entry_bytes.mutable_data_ptr(), entries.data(), entry_bytes.nbytes());
  const at::Tensor entries_there = Put(entry_bytes);
  const at::Tensor chunk_tensor_there = Put(at::tensor(chunk_tensor, at::kInt));
  const at::Tensor tensor_chunk_there = Put(at::tensor(tensor_chunk, at::kInt));
  const auto chunks = static_cast<int64_t>(chunk_tensor.size());
  const cuda::AdamWTable table{.tensors = Elements<cuda::AdamWTensor>(entries_there),
                               .chunk_tensor = Elements<int32_t>(chunk_tensor_there),
                               .tensor_chunk = Elements<int32_t>(tensor_chunk_there),
                               .chunks = chunks};
  const at::Tensor partial = Poisoned({chunks}, at::kDouble);
  const at::Tensor norm = Poisoned({1}, at::kFloat);
  const at::Tensor clip = Poisoned({1}, at::kFloat);
  const auto measure_norm = [&] {
    return cuda::LaunchGradientNorm({.table = table,
                                     .max_norm = static_cast<float>(kMaxNorm),
                                     .partial = Elements<double>(partial),
                                     .norm = Elements<float>(norm),
                                     .clip_factor = Elements<float>(clip)},
                                    stream());
  };
  ASSERT_EQ(measure_norm(), cudaSuccess);
  const double expected_norm = at::cat(tuned.gradients).norm().item<double>();
  EXPECT_NEAR(Get(norm).item<double>(), expected_norm, 1e-5 * expected_norm);
  const double factor = std::min(1.0, kMaxNorm / (expected_norm + 1e-6));
  EXPECT_LT(factor, 1.0);
  EXPECT_NEAR(Get(clip).item<double>(), factor, 1e-6);

  constexpr int64_t kStep = 7;
  cuda::AdamWParams params{
      .table = table,
      .learning_rate = {static_cast<float>(rates[0]), static_cast<float>(rates[1])},
      .beta1 = 0.9f,
      .beta2 = 0.999f,
      .epsilon = 1e-8f,
      .weight_decay = 0.01f};
  params.bias_correction1 = static_cast<float>(1 - std::pow(0.9, kStep));
  params.sqrt_bias_correction2 = static_cast<float>(std::sqrt(1 - std::pow(0.999, kStep)));
  params.norm = Elements<float>(norm);
  params.clip_factor = Elements<float>(clip);
  ASSERT_EQ(cuda::LaunchAdamW(params, stream()), cudaSuccess);
  for (size_t t = 0; t < sizes.size(); ++t) {
    at::Tensor steps = at::full({}, static_cast<double>(kStep - 1), at::kFloat);
    steps += 1;
    at::_fused_adamw_({tuned.parameters[t]}, {tuned.gradients[t] * factor}, {tuned.first[t]},
                      {tuned.second[t]}, {}, {steps}, rates[t == 0 ? 1 : 0], 0.9, 0.999, 0.01, 1e-8,
                      /*amsgrad=*/false, /*maximize=*/false);
    EXPECT_TRUE(at::allclose(Get(there.parameters[t]), tuned.parameters[t], 1e-5, 1e-6)) << t;
    EXPECT_TRUE(at::allclose(Get(there.first[t]), tuned.first[t], 1e-5, 1e-7)) << t;
    EXPECT_TRUE(at::allclose(Get(there.second[t]), tuned.second[t], 1e-5, 1e-8)) << t;
  }

  // A gradient that is not finite updates nothing.
  const at::Tensor before = Get(there.parameters[4]);
  there.gradients[2][17] = std::numeric_limits<float>::quiet_NaN();
  ASSERT_EQ(measure_norm(), cudaSuccess);
  EXPECT_FALSE(std::isfinite(Get(norm).item<double>()));
  ASSERT_EQ(cuda::LaunchAdamW(params, stream()), cudaSuccess);
  EXPECT_TRUE(at::equal(Get(there.parameters[4]), before));
}

PRICER_KERNEL_SUITE(TrainingKernelTest);

}  // namespace
}  // namespace pricer
