#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "model/ops/cross_entropy_kernel.h"
#include "model/ops/lora_kernel.h"
#include "model/ops/nf4_kernel.h"
#include "model/ops/rms_norm_kernel.h"
#include "model/ops/rotary_kernel.h"
#include "model/ops/swiglu_kernel.h"
#include "tests/testing/kernel_device.h"

// Tensors of more than 2^31 elements: what a kernel makes of the last rows of one is, to the bit,
// what it makes of those rows alone, which other tests compare with the CPU's ops. On a CPU this
// takes minutes and 16 GB, so there only where PRICER_TEST_LARGE_TENSORS is set.

namespace pricer {
namespace {

using Bf16 = __nv_bfloat16;

constexpr int64_t kMany = (int64_t{1} << 31) + 12345;  // elements
constexpr int64_t kTail = 3;                           // rows

class LargeTensorTest : public KernelTest {
 protected:
  void SetUp() override {
    KernelTest::SetUp();
    if (IsSkipped()) return;
    if (emulated() && std::getenv("PRICER_TEST_LARGE_TENSORS") == nullptr) {
      GTEST_SKIP() << "too long without a GPU";
    }
  }

  // Zeros but for the last rows.
  at::Tensor Rows(int64_t rows, int64_t columns, at::ScalarType dtype) const {
    at::Tensor tensor = at::zeros({rows, columns}, at::TensorOptions(device()).dtype(dtype));
    Tail(tensor).copy_(at::randn({kTail, columns}));
    return tensor;
  }
  static at::Tensor Tail(const at::Tensor& rows) {
    return rows.narrow(0, rows.size(0) - kTail, kTail);
  }
  void ExpectTail(const at::Tensor& whole, const at::Tensor& alone) const {
    EXPECT_TRUE(at::equal(Get(Tail(whole)), Get(alone)));
  }
};

TEST_P(LargeTensorTest, RmsNorm) {
  constexpr int64_t kColumns = 4096;
  const at::Tensor residual = Rows(kMany / kColumns + kTail, kColumns, at::kBFloat16);
  const at::Tensor weight = Put(at::randn({kColumns}).to(at::kBFloat16));
  const auto run = [&](const at::Tensor& rows) {
    const at::Tensor normed = at::empty_like(rows);
    const at::Tensor inverse_rms = Poisoned({rows.size(0)}, at::kFloat);
    EXPECT_EQ(cuda::LaunchAddRmsNorm<Bf16>({.rows = rows.size(0),
                                            .columns = kColumns,
                                            .epsilon = 1e-5f,
                                            .residual = Elements<Bf16>(rows),
                                            .delta = nullptr,
                                            .weight = Elements<Bf16>(weight),
                                            .sum = nullptr,
                                            .normed = Elements<Bf16>(normed),
                                            .inverse_rms = Elements<float>(inverse_rms)},
                                           stream()),
              cudaSuccess);
    return normed;
  };
  ExpectTail(run(residual), run(Tail(residual).clone()));
}

TEST_P(LargeTensorTest, Swiglu) {
  constexpr int64_t kColumns = 14336;
  const at::Tensor gate_up = Rows(kMany / (2 * kColumns) + kTail, 2 * kColumns, at::kBFloat16);
  const auto run = [&](const at::Tensor& rows) {
    const at::Tensor out =
        at::empty({rows.size(0), kColumns}, at::TensorOptions(device()).dtype(at::kBFloat16));
    EXPECT_EQ(cuda::LaunchSwiglu<Bf16>({.rows = rows.size(0),
                                        .columns = kColumns,
                                        .gate_up = Elements<Bf16>(rows),
                                        .out = Elements<Bf16>(out)},
                                       stream()),
              cudaSuccess);
    return out;
  };
  ExpectTail(run(gate_up), run(Tail(gate_up).clone()));
}

TEST_P(LargeTensorTest, Rotary) {
  constexpr int64_t kColumns = 65536;
  constexpr int64_t kHalf = 64;
  const at::Tensor data = Rows(kMany / kColumns + kTail, kColumns, at::kBFloat16);
  const at::Tensor positions = Put(at::ones({data.size(0)}, at::kLong));
  const at::Tensor cos = Put(at::randn({2, kHalf}));
  const at::Tensor sin = Put(at::randn({2, kHalf}));
  const auto run = [&](const at::Tensor& rows) {
    EXPECT_EQ(cuda::LaunchRotary<Bf16>({.rows = rows.size(0),
                                        .heads = 2,
                                        .half = kHalf,
                                        .data = Elements<Bf16>(rows),
                                        .stride = kColumns,
                                        .positions = Elements<int64_t>(positions),
                                        .cos = Elements<float>(cos),
                                        .sin = Elements<float>(sin)},
                                       stream()),
              cudaSuccess);
    return rows;
  };
  const at::Tensor alone = Tail(data).clone();
  ExpectTail(run(data), run(alone));
}

TEST_P(LargeTensorTest, CrossEntropy) {
  constexpr int64_t kClasses = 128256;
  const at::Tensor logits = Rows(kMany / kClasses + kTail, kClasses, at::kFloat);
  const at::Tensor labels = Put(at::full({logits.size(0)}, 77, at::kLong));
  const auto run = [&](const at::Tensor& rows) {
    const at::Tensor loss = Poisoned({rows.size(0)}, at::kFloat);
    EXPECT_EQ(cuda::LaunchCrossEntropy({.rows = rows.size(0),
                                        .classes = kClasses,
                                        .logits = Elements<float>(rows),
                                        .labels = Elements<int64_t>(labels),
                                        .loss = Elements<float>(loss)},
                                       stream()),
              cudaSuccess);
    return loss;
  };
  ExpectTail(run(logits), run(Tail(logits).clone()));
}

// The last blocks, as rows of 64 values.
TEST_P(LargeTensorTest, Nf4Decode) {
  constexpr int64_t kBlock = 64;
  const int64_t blocks = kMany / kBlock + kTail;
  const auto bytes = at::TensorOptions(device()).dtype(at::kByte);
  const at::Tensor packed = at::zeros({blocks, kBlock / 2}, bytes);
  Tail(packed).copy_(at::randint(256, {kTail, kBlock / 2}, at::kByte));
  const at::Tensor absmax = at::ones({blocks}, bytes.dtype(at::kFloat));
  const auto run = [&](const at::Tensor& codes) {
    const at::Tensor out = at::empty({codes.size(0), kBlock}, bytes.dtype(at::kBFloat16));
    const cuda::Nf4View view{.count = out.numel(),
                             .packed = Elements<uint8_t>(codes),
                             .absmax = Elements<float>(absmax)};
    EXPECT_EQ(cuda::LaunchNf4Decode(view, nullptr, Elements<Bf16>(out), stream()), cudaSuccess);
    return out;
  };
  ExpectTail(run(packed), run(Tail(packed).clone()));
}

// An adapter of the last rows.
TEST_P(LargeTensorTest, LoraStates) {
  constexpr int64_t kIn = 14336;
  constexpr int32_t kRank = 16;
  const at::Tensor x = Rows(kMany / kIn + kTail, kIn, at::kBFloat16);
  const at::Tensor a = Put(at::randn({kRank, kIn}).to(at::kBFloat16));
  const at::Tensor b = Put(at::randn({kRank, kRank}).to(at::kBFloat16));
  const auto run = [&](const at::Tensor& rows) {
    const cuda::LoraKernelPart part{.row_begin = rows.size(0) - kTail,
                                    .rows = kTail,
                                    .rank = kRank,
                                    .out_size = kRank,
                                    .a = Elements<Bf16>(a),
                                    .b = Elements<Bf16>(b)};
    const cuda::LoraBatch batch{
        .parts = &part, .count = 1, .in = kIn, .out = kRank, .state_size = part.state_size()};
    const at::Tensor states = Poisoned({kTail, part.padded_rank()}, at::kBFloat16);
    const at::Tensor workspace = Poisoned({cuda::LoraWorkspaceSize(batch)}, at::kFloat);
    EXPECT_EQ(cuda::LaunchLoraStates(batch, Elements<Bf16>(rows), Elements<float>(workspace),
                                     Elements<Bf16>(states), stream()),
              cudaSuccess);
    return Get(states);
  };
  EXPECT_TRUE(at::equal(run(x), run(Tail(x).clone())));
}

PRICER_KERNEL_SUITE(LargeTensorTest);

}  // namespace
}  // namespace pricer
