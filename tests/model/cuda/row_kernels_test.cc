#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <tuple>

#include "model/ops/dropout.h"
#include "model/ops/dropout_kernel.h"
#include "model/ops/rms_norm.h"
#include "model/ops/rms_norm_kernel.h"
#include "model/ops/rotary.h"
#include "model/ops/rotary_kernel.h"
#include "model/ops/swiglu.h"
#include "model/ops/swiglu_kernel.h"
#include "tests/testing/kernel_device.h"

// Against the CPU's ops, which define them. Shapes are odd, even, of one row and one column, and
// longer than a block.

namespace pricer {
namespace {

using Bf16 = __nv_bfloat16;

at::Tensor Random(at::IntArrayRef shape, at::ScalarType dtype) {
  return at::randn(shape, at::kFloat).to(dtype);
}

// In bf16 two results may be neighbours.
void ExpectClose(const at::Tensor& actual, const at::Tensor& expected) {
  ASSERT_EQ(actual.sizes(), expected.sizes());
  const bool narrow = expected.scalar_type() == at::kBFloat16;
  const at::Tensor a = actual.to(at::kDouble);
  const at::Tensor e = expected.to(at::kDouble);
  EXPECT_TRUE(at::allclose(a, e, /*rtol=*/narrow ? 1e-2 : 1e-5, /*atol=*/narrow ? 1e-3 : 1e-6))
      << "largest difference " << (a - e).abs().max().item<double>() << " of shape "
      << actual.sizes();
}

struct RowShape {
  int64_t rows, columns;
};
constexpr RowShape kRowShapes[] = {{1, 1}, {3, 7}, {2, 64}, {5, 576}, {1, 4096}, {2, 2056}, {0, 8}};

class RowKernelTest : public KernelTest {
 protected:
  template <typename T>
  void CheckRmsNorm(const RowShape& shape, at::ScalarType dtype, bool has_delta);
  template <typename T>
  void CheckSwiglu(const RowShape& shape, at::ScalarType dtype);
  template <typename T>
  void CheckRotary(int64_t rows, int64_t heads, int64_t half, int64_t behind, at::ScalarType dtype);
};

template <typename T>
void RowKernelTest::CheckRmsNorm(const RowShape& shape, at::ScalarType dtype, bool has_delta) {
  constexpr float kEpsilon = 1e-5f;
  const auto [rows, columns] = shape;
  const at::Tensor residual = Random({rows, columns}, dtype).set_requires_grad(true);
  const at::Tensor delta = has_delta ? Random({rows, columns}, dtype) : at::Tensor();
  const at::Tensor weight = Random({columns}, dtype);
  const AddRmsNormOutput expected = AddRmsNorm(residual, delta, weight, kEpsilon);
  const at::Tensor grad_normed = Random({rows, columns}, dtype);
  const at::Tensor grad_sum = has_delta ? Random({rows, columns}, dtype) : at::Tensor();
  at::Tensor through = (expected.normed.to(at::kFloat) * grad_normed.to(at::kFloat)).sum();
  if (has_delta) {
    through = through + (expected.sum.to(at::kFloat) * grad_sum.to(at::kFloat)).sum();
  }
  through.backward();

  const at::Tensor residual_there = Put(residual.detach());
  const at::Tensor delta_there = Put(delta);
  const at::Tensor weight_there = Put(weight);
  const at::Tensor sum = has_delta ? Poisoned({rows, columns}, dtype) : residual_there;
  const at::Tensor normed = Poisoned({rows, columns}, dtype);
  const at::Tensor inverse_rms = Poisoned({rows}, at::kFloat);
  ASSERT_EQ(cuda::LaunchAddRmsNorm<T>({.rows = rows,
                                       .columns = columns,
                                       .epsilon = kEpsilon,
                                       .residual = Elements<T>(residual_there),
                                       .delta = Elements<T>(delta_there),
                                       .weight = Elements<T>(weight_there),
                                       .sum = has_delta ? Elements<T>(sum) : nullptr,
                                       .normed = Elements<T>(normed),
                                       .inverse_rms = Elements<float>(inverse_rms)},
                                      stream()),
            cudaSuccess);
  ExpectClose(Get(normed), expected.normed.detach());
  EXPECT_TRUE(at::equal(Get(sum), expected.sum.detach()));

  const at::Tensor grad_normed_there = Put(grad_normed);
  const at::Tensor grad_sum_there = Put(grad_sum);
  const at::Tensor grad = Poisoned({rows, columns}, dtype);
  ASSERT_EQ(cuda::LaunchRmsNormGradient<T>({.rows = rows,
                                            .columns = columns,
                                            .grad_normed = Elements<T>(grad_normed_there),
                                            .grad_sum = Elements<T>(grad_sum_there),
                                            .sum = Elements<T>(sum),
                                            .weight = Elements<T>(weight_there),
                                            .inverse_rms = Elements<float>(inverse_rms),
                                            .grad = Elements<T>(grad)},
                                           stream()),
            cudaSuccess);
  ExpectClose(Get(grad), residual.grad());
}

TEST_P(RowKernelTest, RmsNormAndItsGradientAreTheCpus) {
  for (const RowShape& shape : kRowShapes) {
    for (bool has_delta : {true, false}) {
      CheckRmsNorm<float>(shape, at::kFloat, has_delta);
      CheckRmsNorm<Bf16>(shape, at::kBFloat16, has_delta);
    }
  }
}

template <typename T>
void RowKernelTest::CheckSwiglu(const RowShape& shape, at::ScalarType dtype) {
  const auto [rows, columns] = shape;
  const at::Tensor gate_up = Random({rows, 2 * columns}, dtype).set_requires_grad(true);
  const at::Tensor grad = Random({rows, columns}, dtype);
  const at::Tensor expected = Swiglu(gate_up);
  expected.backward(grad);

  const at::Tensor gate_up_there = Put(gate_up.detach());
  const at::Tensor out = Poisoned({rows, columns}, dtype);
  ASSERT_EQ(cuda::LaunchSwiglu<T>({.rows = rows,
                                   .columns = columns,
                                   .gate_up = Elements<T>(gate_up_there),
                                   .out = Elements<T>(out)},
                                  stream()),
            cudaSuccess);
  ExpectClose(Get(out), expected.detach());
  const at::Tensor grad_there = Put(grad);
  const at::Tensor grad_gate_up = Poisoned({rows, 2 * columns}, dtype);
  ASSERT_EQ(cuda::LaunchSwigluGradient<T>({.rows = rows,
                                           .columns = columns,
                                           .grad = Elements<T>(grad_there),
                                           .gate_up = Elements<T>(gate_up_there),
                                           .grad_gate_up = Elements<T>(grad_gate_up)},
                                          stream()),
            cudaSuccess);
  ExpectClose(Get(grad_gate_up), gate_up.grad());
}

TEST_P(RowKernelTest, SwigluAndItsGradientAreTheCpus) {
  for (const RowShape& shape : kRowShapes) {
    CheckSwiglu<float>(shape, at::kFloat);
    CheckSwiglu<Bf16>(shape, at::kBFloat16);
  }
}

TEST_P(RowKernelTest, SwigluOfManyRowsLeavesNoneOut) {
  CheckSwiglu<Bf16>({70000, 3}, at::kBFloat16);
}

template <typename T>
void RowKernelTest::CheckRotary(int64_t rows, int64_t heads, int64_t half, int64_t behind,
                                at::ScalarType dtype) {
  constexpr int64_t kPositions = 50;
  const at::Tensor angles = at::randn({kPositions, half}, at::kFloat);
  const RotaryTable table{at::cos(angles), at::sin(angles)};
  const at::Tensor positions = at::randint(kPositions, {rows}, at::kLong);
  const at::Tensor before = Random({rows, heads * 2 * half + behind}, dtype);
  for (bool inverse : {false, true}) {
    const at::Tensor expected = before.clone();
    RotateInPlace(expected, positions, table, heads, inverse);
    const at::Tensor data = Put(before);
    const at::Tensor positions_there = Put(positions);
    const at::Tensor cos = Put(table.cos);
    const at::Tensor sin = Put(table.sin);
    ASSERT_EQ(cuda::LaunchRotary<T>({.rows = rows,
                                     .heads = heads,
                                     .half = half,
                                     .data = Elements<T>(data),
                                     .stride = data.stride(0),
                                     .positions = Elements<int64_t>(positions_there),
                                     .cos = Elements<float>(cos),
                                     .sin = Elements<float>(sin),
                                     .inverse = inverse},
                                    stream()),
              cudaSuccess);
    ExpectClose(Get(data), expected);
  }
}

TEST_P(RowKernelTest, RotaryIsTheCpus) {
  struct Case {
    int64_t rows, heads, half, behind;
  };
  for (const auto& [rows, heads, half, behind] :
       {Case{1, 1, 1, 0}, {7, 3, 4, 5}, {9, 12, 32, 192}, {2, 40, 64, 64}, {3, 5, 3, 1}}) {
    CheckRotary<float>(rows, heads, half, behind, at::kFloat);
    CheckRotary<Bf16>(rows, heads, half, behind, at::kBFloat16);
  }
}

TEST_P(RowKernelTest, DropoutMaskIsTheCpusToTheBit) {
  for (const auto& [rows, channels] : {RowShape{1, 1}, {4, 31}, {3, 32}, {5, 576}, {2, 4100}}) {
    const Dropout dropout{
        .probability = 0.3, .seed = 0x123456789abcdefULL, .module = 77, .step = 41};
    const DropoutRows at{at::randint(1 << 20, {rows}, at::kLong),
                         at::randint(512, {rows}, at::kLong)};
    const at::Tensor expected = DropoutMask(dropout, at, channels);
    const at::Tensor row = Put(at.row);
    const at::Tensor position = Put(at.position);
    const at::Tensor mask = Poisoned(expected.sizes(), at::kInt);
    const DropoutRowKey key = DropoutKeyOf(dropout);
    ASSERT_EQ(cuda::LaunchDropoutMask({.rows = rows,
                                       .channels = channels,
                                       .key = {key.key[0], key.key[1]},
                                       .step = key.counter[0],
                                       .threshold = key.threshold,
                                       .row = Elements<int64_t>(row),
                                       .position = Elements<int64_t>(position),
                                       .mask = Elements<uint32_t>(mask)},
                                      stream()),
              cudaSuccess);
    EXPECT_TRUE(at::equal(Get(mask), expected)) << rows << " rows of " << channels;
  }
}

PRICER_KERNEL_SUITE(RowKernelTest);

}  // namespace
}  // namespace pricer
