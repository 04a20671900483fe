#include "model/ops/lora_kernel.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "model/ops/dropout.h"
#include "tests/testing/kernel_device.h"

// Against the formulas of model/ops/lora_linear.h in fp64, from the same bf16 operands.

namespace pricer {
namespace {

using Bf16 = __nv_bfloat16;

struct PartSpec {
  int64_t linear, rank;
};
struct SegmentSpec {
  int64_t rows;
  std::vector<PartSpec> parts;
};
struct LoraCase {
  std::string name;
  int64_t in = 0;
  std::vector<int64_t> outs;  // of the linears
  std::vector<SegmentSpec> segments;
  bool dropout = false;
};

// The tensors of one part.
struct Part {
  int64_t row_begin = 0, rows = 0, out_begin = 0, out_size = 0, rank = 0;
  int segment = 0;
  double scale = 1;
  at::Tensor a, b, mask;  // bf16, bf16, int32
  at::Tensor kept;        // [rows, in] fp64: ones where x is kept
};

at::Tensor KeptOf(const at::Tensor& mask, int64_t channels) {
  const at::Tensor channel = at::arange(channels, at::kLong);
  const at::Tensor words = mask.to(at::kLong).index_select(1, at::floor_divide(channel, 32));
  return at::bitwise_and(at::bitwise_right_shift(words, channel.remainder(32)),
                         at::ones({}, at::kLong))
      .to(at::kDouble);
}

std::vector<Part> MakeParts(const LoraCase& c) {
  std::vector<Part> parts;
  int64_t row = 0;
  for (size_t s = 0; s < c.segments.size(); ++s) {
    const SegmentSpec& segment = c.segments[s];
    for (const PartSpec& spec : segment.parts) {
      Part part;
      part.row_begin = row;
      part.rows = segment.rows;
      part.rank = spec.rank;
      part.segment = static_cast<int>(s);
      part.scale = 0.5 + static_cast<double>(parts.size());
      for (int64_t l = 0; l < spec.linear; ++l) part.out_begin += c.outs[l];
      part.out_size = c.outs[spec.linear];
      part.a = at::randn({spec.rank, c.in}).to(at::kBFloat16);
      part.b = at::randn({part.out_size, spec.rank}).to(at::kBFloat16);
      part.kept = at::ones({segment.rows, c.in}, at::kDouble);
      if (c.dropout) {
        part.mask =
            DropoutMask({.probability = 0.4, .seed = 9, .module = spec.linear},
                        {at::arange(segment.rows), at::zeros({segment.rows}, at::kLong)}, c.in);
        part.kept = KeptOf(part.mask, c.in);
      }
      parts.push_back(part);
    }
    row += segment.rows;
  }
  return parts;
}

// Sums of products of bf16 values, rounded to bf16: relative to the largest of them.
void ExpectClose(const at::Tensor& actual, const at::Tensor& expected, const std::string& what) {
  ASSERT_EQ(actual.sizes(), expected.sizes()) << what;
  if (actual.numel() == 0) return;
  const double difference = (actual.to(at::kDouble) - expected).abs().max().item<double>();
  EXPECT_LE(difference, 6e-3 * expected.abs().max().item<double>()) << what;
}

class LoraKernelTest : public KernelTest {
 protected:
  void Check(const LoraCase& c);
};

void LoraKernelTest::Check(const LoraCase& c) {
  SCOPED_TRACE(c.name);
  const std::vector<Part> parts = MakeParts(c);
  int64_t rows = 2;  // behind the last segment are two without an adapter
  for (const SegmentSpec& segment : c.segments) rows += segment.rows;
  int64_t out = 0;
  for (int64_t size : c.outs) out += size;
  const at::Tensor x = at::randn({rows, c.in}).to(at::kBFloat16);
  const at::Tensor y = at::randn({rows, out}).to(at::kBFloat16);
  const at::Tensor grad = at::randn({rows, out}).to(at::kBFloat16);
  const at::Tensor grad_x = at::randn({rows, c.in}).to(at::kBFloat16);

  std::vector<Part> there = parts;
  std::vector<at::Tensor> grads_a, grads_b;
  std::vector<cuda::LoraKernelPart> kernel_parts;
  cuda::LoraBatch batch{.in = c.in, .out = out};
  for (Part& part : there) {
    part.a = Put(part.a);
    part.b = Put(part.b);
    part.mask = Put(part.mask);
    grads_a.push_back(Poisoned({part.rank, c.in}, at::kFloat));
    grads_b.push_back(Poisoned({part.out_size, part.rank}, at::kFloat));
    kernel_parts.push_back({.row_begin = part.row_begin,
                            .rows = static_cast<int32_t>(part.rows),
                            .rank = static_cast<int32_t>(part.rank),
                            .segment = part.segment,
                            .out_size = static_cast<int32_t>(part.out_size),
                            .out_begin = part.out_begin,
                            .state_begin = batch.state_size,
                            .scale = static_cast<float>(part.scale),
                            .a = Elements<Bf16>(part.a),
                            .b = Elements<Bf16>(part.b),
                            .mask = Elements<uint32_t>(part.mask),
                            .grad_a = Elements<float>(grads_a.back()),
                            .grad_b = Elements<float>(grads_b.back())});
    batch.state_size += kernel_parts.back().state_size();
  }
  batch.parts = kernel_parts.data();
  batch.count = static_cast<int>(kernel_parts.size());
  const at::Tensor x_there = Put(x);
  const at::Tensor y_there = Put(y);
  const at::Tensor grad_there = Put(grad);
  const at::Tensor grad_x_there = Put(grad_x);
  const at::Tensor states = Poisoned({batch.state_size}, at::kBFloat16);
  const at::Tensor grad_states = Poisoned({batch.state_size}, at::kBFloat16);
  const at::Tensor workspace = Poisoned({cuda::LoraWorkspaceSize(batch)}, at::kFloat);
  auto* const work = Elements<float>(workspace);
  ASSERT_EQ(cuda::LaunchLoraStates(batch, Elements<Bf16>(x_there), work, Elements<Bf16>(states),
                                   stream()),
            cudaSuccess);
  ASSERT_EQ(
      cuda::LaunchLoraOutput(batch, Elements<Bf16>(states), Elements<Bf16>(y_there), stream()),
      cudaSuccess);
  ASSERT_EQ(cuda::LaunchLoraStateGradient(batch, Elements<Bf16>(grad_there), work,
                                          Elements<Bf16>(grad_states), stream()),
            cudaSuccess);
  ASSERT_EQ(cuda::LaunchLoraInputGradient(batch, Elements<Bf16>(grad_states),
                                          Elements<Bf16>(grad_x_there), stream()),
            cudaSuccess);
  ASSERT_EQ(cuda::LaunchLoraWeightGradients(batch, Elements<Bf16>(x_there),
                                            Elements<Bf16>(grad_there), Elements<Bf16>(states),
                                            Elements<Bf16>(grad_states), work, stream()),
            cudaSuccess);

  at::Tensor expected_y = y.to(at::kDouble);
  at::Tensor expected_grad_x = grad_x.to(at::kDouble);
  const at::Tensor states_here = Get(states);
  const at::Tensor grad_states_here = Get(grad_states);
  for (size_t p = 0; p < parts.size(); ++p) {
    const Part& part = parts[p];
    const std::string what = "part " + std::to_string(p);
    const auto state_of = [&](const at::Tensor& all) {
      const cuda::LoraKernelPart& kernel = kernel_parts[p];
      return all.narrow(0, kernel.state_begin, kernel.state_size())
          .view({part.rows, kernel.padded_rank()});
    };
    const at::Tensor a = part.a.to(at::kDouble);
    const at::Tensor b = part.b.to(at::kDouble);
    const at::Tensor kept_x = x.narrow(0, part.row_begin, part.rows).to(at::kDouble) * part.kept;
    const at::Tensor grad_y = grad.narrow(0, part.row_begin, part.rows)
                                  .narrow(1, part.out_begin, part.out_size)
                                  .to(at::kDouble);
    const at::Tensor h = kept_x.matmul(a.t());
    const at::Tensor grad_h = part.scale * grad_y.matmul(b);
    ExpectClose(state_of(states_here).narrow(1, 0, part.rank), h, what + " states");
    ExpectClose(state_of(grad_states_here).narrow(1, 0, part.rank), grad_h, what + " grad_states");
    // From the states as they were rounded.
    const at::Tensor h_rounded = state_of(states_here).narrow(1, 0, part.rank).to(at::kDouble);
    const at::Tensor grad_h_rounded =
        state_of(grad_states_here).narrow(1, 0, part.rank).to(at::kDouble);
    expected_y.narrow(0, part.row_begin, part.rows)
        .narrow(1, part.out_begin, part.out_size)
        .add_(part.scale * h_rounded.matmul(b.t()));
    expected_grad_x.narrow(0, part.row_begin, part.rows).add_(grad_h_rounded.matmul(a) * part.kept);
    ExpectClose(Get(grads_a[p]), grad_h_rounded.t().matmul(kept_x), what + " grad_a");
    ExpectClose(Get(grads_b[p]), part.scale * grad_y.t().matmul(h_rounded), what + " grad_b");
  }
  ExpectClose(Get(y_there), expected_y, "y");
  ExpectClose(Get(grad_x_there), expected_grad_x, "grad_x");
  // Rows without an adapter are untouched.
  EXPECT_TRUE(at::equal(Get(y_there).narrow(0, rows - 2, 2), y.narrow(0, rows - 2, 2)));
}

TEST_P(LoraKernelTest, OneAdapterOverLinearsThatShareAnInput) {
  Check({.name = "wide",
         .in = 128,
         .outs = {128, 64, 64},
         .segments = {{70, {{0, 16}, {1, 16}, {2, 16}}}}});
  Check({.name = "odd", .in = 37, .outs = {19, 5}, .segments = {{3, {{0, 4}, {1, 3}}}}});
  Check({.name = "one row", .in = 64, .outs = {72}, .segments = {{1, {{0, 8}}}}});
}

TEST_P(LoraKernelTest, EachSegmentHasItsOwnRankAndLinears) {
  Check({.name = "mixed",
         .in = 72,
         .outs = {80, 40},
         .segments = {{5, {{0, 8}, {1, 64}}}, {66, {{1, 24}}}, {1, {{0, 80}}}}});
}

TEST_P(LoraKernelTest, KeepsWhatDropoutKeeps) {
  Check({.name = "wide",
         .in = 96,
         .outs = {64, 64},
         .segments = {{9, {{0, 8}, {1, 8}}}},
         .dropout = true});
  Check({.name = "odd",
         .in = 45,
         .outs = {33},
         .segments = {{4, {{0, 5}}}, {6, {{0, 2}}}},
         .dropout = true});
}

TEST_P(LoraKernelTest, SumsLongerThanABlockComputes) {
  Check({.name = "depth",
         .in = 2 * cuda::kLoraDepthSplit + 40,
         .outs = {64, 1064},
         .segments = {{2, {{0, 8}, {1, 8}}}}});
  Check({.name = "rows",
         .in = 16,
         .outs = {16},
         .segments = {{cuda::kLoraDepthSplit + 70, {{0, 8}}}}});
}

TEST_P(LoraKernelTest, MoreAdaptersThanOneLaunchTakes) {
  LoraCase c{.name = "many", .in = 16, .outs = {16, 8}, .segments = {}};
  for (int64_t s = 0; s < 105; ++s) c.segments.push_back({1 + s % 2, {{0, 8}, {1, 1 + s % 9}}});
  Check(c);
}

TEST_P(LoraKernelTest, NothingToDo) {
  Check({.name = "none", .in = 16, .outs = {16}, .segments = {}});
}

PRICER_KERNEL_SUITE(LoraKernelTest);

}  // namespace
}  // namespace pricer
