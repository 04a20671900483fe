#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "model/layers/rotary.h"
#include "model/ops/attention.h"
#include "model/ops/cross_entropy.h"
#include "model/ops/device_nf4.h"
#include "model/ops/dropout.h"
#include "model/ops/lora_linear.h"
#include "model/ops/rms_norm.h"
#include "model/ops/swiglu.h"
#include "tests/testing/test_gpu.h"

// Ops of tensors on a GPU and their gradients against those of a CPU, in bf16.

namespace pricer {
namespace {

using testing::TestGpu;

// What an op is given and how it is called; `leaves` get gradients.
struct OpCase {
  std::string name;
  std::vector<at::Tensor> leaves;
  std::function<std::vector<at::Tensor>(const std::vector<at::Tensor>& leaves, at::Device device)>
      run;
};

struct OpResult {
  std::vector<at::Tensor> outputs, grads;
};

OpResult RunOn(const OpCase& c, at::Device device) {
  std::vector<at::Tensor> leaves;
  for (const at::Tensor& leaf : c.leaves) {
    leaves.push_back(leaf.detach().to(device, leaf.scalar_type(), false, /*copy=*/true));
    leaves.back().set_requires_grad(true);
  }
  OpResult result;
  at::Tensor sum = at::zeros({}, at::TensorOptions(device).dtype(at::kFloat));
  for (const at::Tensor& output : c.run(leaves, device)) {
    result.outputs.push_back(output.detach().cpu());
    // Every element with a weight of its own.
    const at::Tensor weights =
        at::linspace(-1, 1, output.numel(), at::kFloat).cos().view(output.sizes()).to(device);
    sum = sum + (output.to(at::kFloat) * weights).sum();
  }
  sum.backward();
  for (const at::Tensor& leaf : leaves) {
    result.grads.push_back(leaf.grad().defined() ? leaf.grad().cpu() : at::Tensor());
  }
  return result;
}

// The same in fp32, from values that bf16 holds.
OpCase Widened(OpCase c) {
  for (at::Tensor& leaf : c.leaves) leaf = leaf.to(at::kFloat);
  return c;
}

double LargestDifference(const at::Tensor& a, const at::Tensor& b) {
  return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}

// As near to fp32 as a CPU's bf16 is, give or take.
void ExpectClose(const at::Tensor& actual, const at::Tensor& on_cpu, const at::Tensor& exact,
                 const std::string& what) {
  ASSERT_EQ(actual.defined(), exact.defined()) << what;
  if (!actual.defined()) return;
  ASSERT_EQ(actual.sizes(), exact.sizes()) << what;
  const double largest = exact.to(at::kDouble).abs().max().item<double>();
  EXPECT_LE(LargestDifference(actual, exact),
            2 * LargestDifference(on_cpu, exact) + 0x1p-8 * largest + 1e-6)
      << what << ", where the largest value is " << largest;
}

void ExpectClose(const OpResult& actual, const OpResult& on_cpu, const OpResult& exact,
                 const std::string& name) {
  ASSERT_EQ(actual.outputs.size(), exact.outputs.size());
  for (size_t i = 0; i < exact.outputs.size(); ++i) {
    ExpectClose(actual.outputs[i], on_cpu.outputs[i], exact.outputs[i],
                name + " output " + std::to_string(i));
  }
  for (size_t i = 0; i < exact.grads.size(); ++i) {
    ExpectClose(actual.grads[i], on_cpu.grads[i], exact.grads[i],
                name + " gradient " + std::to_string(i));
  }
}

void ExpectSameOnGpu(const OpCase& c) {
  const OpResult on_cpu = RunOn(c, at::kCPU);
  const OpResult exact = RunOn(Widened(c), at::kCPU);
  PRICER_ENTER_GPU(gpu);
  ExpectClose(RunOn(c, gpu->device()), on_cpu, exact, c.name);
}

at::Tensor Bf16(at::IntArrayRef shape) { return at::randn(shape).to(at::kBFloat16); }

TEST(GpuOpsTest, AddRmsNorm) {
  const at::Tensor weight = Bf16({72});
  ExpectSameOnGpu({"with delta",
                   {Bf16({9, 72}), Bf16({9, 72})},
                   [&](const auto& x, at::Device device) -> std::vector<at::Tensor> {
                     const AddRmsNormOutput out =
                         AddRmsNorm(x[0], x[1], weight.to(device, x[0].scalar_type()), 1e-5);
                     return {out.sum, out.normed};
                   }});
  ExpectSameOnGpu({"without",
                   {Bf16({9, 72})},
                   [&](const auto& x, at::Device device) -> std::vector<at::Tensor> {
                     return {
                         AddRmsNorm(x[0], {}, weight.to(device, x[0].scalar_type()), 1e-5).normed};
                   }});
}

TEST(GpuOpsTest, Swiglu) {
  ExpectSameOnGpu(
      {"swiglu", {Bf16({9, 2 * 40})}, [](const auto& x, at::Device) -> std::vector<at::Tensor> {
         return {Swiglu(x[0])};
       }});
}

TEST(GpuOpsTest, CrossEntropy) {
  const at::Tensor soft = at::softmax(at::randn({5, 128}), 1);
  const at::Tensor labels = at::randint(128, {5}, at::kLong);
  for (const at::Tensor& targets : {soft, labels}) {
    ExpectSameOnGpu({"cross-entropy",
                     {at::randn({5, 128})},
                     [&](const auto& x, at::Device device) -> std::vector<at::Tensor> {
                       return {CrossEntropySum(x[0], targets.to(device)) / 5.0};
                     }});
  }
}

FrozenLinears LinearsOn(at::Device device, const at::Tensor& weight,
                        const std::vector<int64_t>& outs, const at::Tensor& bias, bool gpu) {
  FrozenLinears linears;
  int64_t begin = 0;
  const auto stacked = std::make_shared<const ResidentWeight>(
      weight.to(device), bias.defined() ? bias.to(device) : bias);
  for (const int64_t out : outs) {
    if (gpu) {
      linears.push_back(std::make_shared<const FrozenLinear>(stacked, begin, out));
    } else {
      linears.push_back(std::make_shared<const FrozenLinear>(
          weight.narrow(0, begin, out),
          bias.defined() ? bias.narrow(0, begin, out) : at::Tensor()));
    }
    begin += out;
  }
  return linears;
}

// Three linears; two adapters of different ranks and linears, and rows without one.
void CheckLora(double dropout, bool has_bias, int64_t in) {
  const std::vector<int64_t> outs = {24, 40, 8};
  const at::Tensor weight = Bf16({72, in});
  const at::Tensor bias = has_bias ? Bf16({72}) : at::Tensor();
  const DropoutRows rows{at::arange(60), at::arange(60)};
  bool on_gpu = false;
  const OpCase c{"LoraLinear",
                 {Bf16({60, in}), at::randn({4, in}), at::randn({24, 4}), at::randn({16, in}),
                  at::randn({40, 16}), at::randn({8, in}), at::randn({8, 8})},
                 [&](const auto& x, at::Device device) -> std::vector<at::Tensor> {
                   const auto drop = [&](int64_t module) {
                     return Dropout{.probability = dropout, .seed = 5, .module = module, .step = 2};
                   };
                   const std::vector<LoraSegment> segments = {
                       {3, 9, {{0, x[1], x[2], 0.5, drop(0)}, {1, x[3], x[4], 2.0, drop(1)}}},
                       {9, 58, {{2, x[5], x[6], 1.5, drop(2)}}}};
                   const at::ScalarType dtype = x[0].scalar_type();
                   const FrozenLinears linears =
                       LinearsOn(device, weight.to(dtype), outs,
                                 bias.defined() ? bias.to(dtype) : bias, on_gpu);
                   return {LoraLinear(x[0], linears, segments,
                                      {rows.row.to(device), rows.position.to(device)})};
                 }};
  const OpResult on_cpu = RunOn(c, at::kCPU);
  const OpResult exact = RunOn(Widened(c), at::kCPU);
  PRICER_ENTER_GPU(gpu);
  on_gpu = true;
  ExpectClose(RunOn(c, gpu->device()), on_cpu, exact, c.name);
}

TEST(GpuOpsTest, LoraLinear) { CheckLora(0, /*has_bias=*/false, 64); }
TEST(GpuOpsTest, LoraLinearWithBias) { CheckLora(0, /*has_bias=*/true, 37); }
TEST(GpuOpsTest, LoraLinearWithDropout) { CheckLora(0.3, /*has_bias=*/false, 72); }

RotaryTable TableOf(int64_t positions, int64_t half) {
  const at::Tensor angles = at::outer(at::arange(positions, at::kFloat),
                                      at::pow(10000.0, -at::arange(half, at::kFloat) / half));
  return {at::cos(angles), at::sin(angles)};
}

PackedLayout LayoutOn(at::Device device, const std::vector<int64_t>& lengths,
                      const std::vector<int64_t>& answers) {
  PackedLayout layout;
  layout.offsets = {0};
  layout.answer_offsets = {0};
  std::vector<at::Tensor> positions, answer_positions;
  for (size_t b = 0; b < lengths.size(); ++b) {
    layout.offsets.push_back(layout.offsets.back() + lengths[b]);
    layout.answer_offsets.push_back(layout.answer_offsets.back() + answers[b]);
    positions.push_back(at::arange(lengths[b]));
    answer_positions.push_back(at::arange(lengths[b] - answers[b], lengths[b]));
  }
  layout.positions = at::cat(positions).to(device);
  layout.answer_positions = at::cat(answer_positions).to(device);
  layout.device_offsets = at::tensor(layout.offsets, at::kLong).to(at::kInt).to(device);
  layout.device_answer_offsets =
      at::tensor(layout.answer_offsets, at::kLong).to(at::kInt).to(device);
  return layout;
}

// Head dimensions that flash attention takes, and one that it does not.
class GpuAttentionTest : public ::testing::TestWithParam<int64_t> {};

TEST_P(GpuAttentionTest, Packed) {
  const AttentionShape shape{.heads = 6, .kv_heads = 2, .head_dim = GetParam()};
  const RotaryTable table = TableOf(40, GetParam() / 2);
  ExpectSameOnGpu({"packed",
                   {Bf16({41, 10 * GetParam()})},
                   [&](const auto& x, at::Device device) -> std::vector<at::Tensor> {
                     // Rotates in place, which a leaf must not be.
                     return {PackedAttention(x[0] * 1,
                                             LayoutOn(device, {1, 5, 33, 2}, {1, 1, 1, 1}), shape,
                                             {table.cos.to(device), table.sin.to(device)})};
                   }});
}

TEST_P(GpuAttentionTest, OfAnswers) {
  const AttentionShape shape{.heads = 6, .kv_heads = 2, .head_dim = GetParam()};
  const RotaryTable table = TableOf(40, GetParam() / 2);
  ExpectSameOnGpu({"answers",
                   {Bf16({7, 6 * GetParam()}), Bf16({41, 4 * GetParam()})},
                   [&](const auto& x, at::Device device) -> std::vector<at::Tensor> {
                     return {AnswerAttention(x[0] * 1, x[1] * 1,
                                             LayoutOn(device, {1, 5, 33, 2}, {1, 3, 1, 2}), shape,
                                             {table.cos.to(device), table.sin.to(device)})};
                   }});
}

TEST_P(GpuAttentionTest, OfNodes) {
  const int64_t d = GetParam();
  const AttentionShape shape{.heads = 6, .kv_heads = 2, .head_dim = d};
  const at::Tensor q = Bf16({5, 10 * d});
  const at::Tensor prompt_kv = Bf16({12, 4 * d});
  const at::Tensor path_kv = Bf16({5, 2, 4 * d});
  const std::vector<int64_t> prompts = {0, 3, 10, 12};
  const std::vector<int64_t> nodes = {0, 2, 2, 5};
  const at::Tensor on_cpu = NodeAttention(q, prompt_kv, path_kv, prompts, nodes, shape);
  const at::Tensor exact = NodeAttention(q.to(at::kFloat), prompt_kv.to(at::kFloat),
                                         path_kv.to(at::kFloat), prompts, nodes, shape);
  PRICER_ENTER_GPU(gpu);
  const at::Tensor actual = NodeAttention(q.to(gpu->device()), prompt_kv.to(gpu->device()),
                                          path_kv.to(gpu->device()), prompts, nodes, shape);
  ExpectClose(actual.cpu(), on_cpu, exact, "nodes");
}

INSTANTIATE_TEST_SUITE_P(HeadDims, GpuAttentionTest, ::testing::Values(8, 10, 64));

TEST(GpuOpsTest, Nf4QuantizesAndDecodesAsOnACpu) {
  const at::Tensor values = at::randn({40, 72}) * 0.02;
  const Nf4Tensor expected = *pricer::QuantizeNf4(
      {values.const_data_ptr<float>(), static_cast<size_t>(values.numel())}, {40, 72}, Dtype::kF32);
  std::vector<float> decoded(values.numel());
  DequantizeNf4(expected, absl::MakeSpan(decoded));
  PRICER_ENTER_GPU(gpu);
  const auto quantized = cuda::QuantizeNf4(values.to(gpu->device()));
  ASSERT_TRUE(quantized.ok()) << quantized.status();
  const at::Tensor packed = quantized->packed.cpu();
  EXPECT_TRUE(
      std::equal(expected.packed.begin(), expected.packed.end(), packed.const_data_ptr<uint8_t>()));
  const auto options = at::TensorOptions(gpu->device()).dtype(at::kFloat);
  const at::Tensor uploaded = at::empty({40, 72}, options);
  cuda::DecodeNf4(cuda::UploadNf4(expected, gpu->device()), uploaded);
  EXPECT_TRUE(at::equal(uploaded.cpu().flatten(), at::tensor(decoded, at::kFloat)));
  const at::Tensor own = at::empty({40, 72}, options);
  cuda::DecodeNf4(*quantized, own);
  // The mean of the block maxima may differ in its last bits.
  EXPECT_TRUE(at::allclose(own, uploaded, 1e-3, 1e-6));

  at::Tensor broken = values.to(gpu->device()).clone();
  broken[3][4] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(cuda::QuantizeNf4(broken).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace pricer
