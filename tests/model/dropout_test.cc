// Dropout's masks, and that every instruction set makes and applies the same ones.

#include "model/ops/dropout.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <bit>
#include <cstdint>
#include <numeric>
#include <vector>

#include "absl/types/span.h"
#include "model/ops/dropout_bits.h"

namespace pricer {
namespace {

TEST(DropoutTest, KeepsTheShareItSays) {
  const DropoutRows rows{at::arange(200), at::zeros({200}, at::kLong)};
  const at::Tensor mask = DropoutMask({.probability = 0.1, .seed = 1}, rows, 576);
  int64_t bits = 0;
  const auto* const words = mask.const_data_ptr<int32_t>();
  for (int64_t w = 0; w < mask.numel(); ++w) bits += std::popcount(static_cast<uint32_t>(words[w]));
  const double kept = static_cast<double>(bits) / (200.0 * 576);
  // 115,200 draws: one standard deviation is 0.0009.
  EXPECT_NEAR(kept, 0.9, 0.004);
  EXPECT_NEAR(DropoutScale({.probability = 0.1}), 1 / 0.9, 1e-12);
}

TEST(DropoutTest, EveryInstructionSetGivesTheSameBits) {
  const DropoutRowKey row{
      .key = {0xFFFFFFFF, 7}, .counter = {3, 0x80000001, 191}, .threshold = 5'000'000};
  std::vector<uint32_t> portable(19);
  DropoutBits(DropoutKernel::kPortable, row, absl::MakeSpan(portable));
  for (const DropoutKernel kernel : {DropoutKernel::kAvx2, DropoutKernel::kAvx512}) {
    if (!SupportsDropoutKernel(kernel)) continue;
    std::vector<uint32_t> bits(19);
    DropoutBits(kernel, row, absl::MakeSpan(bits));
    EXPECT_EQ(bits, portable) << static_cast<int>(kernel);
  }
}

// Two rows, the second one word behind the first.
DropoutBlock TwoRowsOf(const std::vector<uint32_t>& bits, int64_t channels) {
  return {bits.data(), 1, 2, channels};
}

bool IsKept(const DropoutBlock& block, int64_t row, int64_t channel) {
  return (block.bits[row * block.stride + channel / 32] >> (channel % 32) & 1) != 0;
}

const std::vector<uint32_t>& SomeBits() {
  static const auto* const bits =
      new std::vector<uint32_t>{0x80000001, 0, 0xFFFFFFFF, 0x12345678, 0xA5A5A5A5};
  return *bits;
}

template <typename T>
void ExpectTheSameKept(int64_t n) {
  const DropoutBlock block = TwoRowsOf(SomeBits(), n);
  const int64_t x_stride = n + 1;
  const int64_t out_stride = n + 2;
  std::vector<T> x(2 * x_stride);
  std::iota(x.begin(), x.end(), T{1});
  for (const DropoutKernel kernel :
       {DropoutKernel::kPortable, DropoutKernel::kAvx2, DropoutKernel::kAvx512}) {
    if (!SupportsDropoutKernel(kernel)) continue;
    std::vector<T> kept(2 * out_stride, T{7});
    KeepElements(kernel, block, x.data(), x_stride, kept.data(), out_stride);
    for (int64_t i = 0; i < 2 * out_stride; ++i) {
      const int64_t t = i / out_stride;
      const int64_t c = i % out_stride;
      T expected{7};  // between the rows
      if (c < n) expected = IsKept(block, t, c) ? x[t * x_stride + c] : T{0};
      ASSERT_EQ(kept[i], expected) << static_cast<int>(kernel) << " row " << t << " channel " << c;
    }
  }
}

TEST(DropoutTest, EveryInstructionSetKeepsTheSameElements) {
  for (int64_t n : {1, 31, 32, 33, 64, 100, 128}) {
    ExpectTheSameKept<uint32_t>(n);
    ExpectTheSameKept<uint16_t>(n);
  }
}

TEST(DropoutTest, EveryInstructionSetAddsTheSameElements) {
  for (int64_t n : {1, 31, 32, 33, 64, 100, 128}) {
    const DropoutBlock block = TwoRowsOf(SomeBits(), n);
    const int64_t stride = n + 3;
    std::vector<float> x(2 * stride);
    std::iota(x.begin(), x.end(), 1.0f);
    for (const DropoutKernel kernel :
         {DropoutKernel::kPortable, DropoutKernel::kAvx2, DropoutKernel::kAvx512}) {
      if (!SupportsDropoutKernel(kernel)) continue;
      std::vector<float> sum(2 * stride, 0.5f);
      AccumulateKept(kernel, block, x.data(), sum.data(), stride);
      for (int64_t i = 0; i < 2 * stride; ++i) {
        const bool is_added = i % stride < n && IsKept(block, i / stride, i % stride);
        ASSERT_EQ(sum[i], is_added ? 0.5f + x[i] : 0.5f) << static_cast<int>(kernel) << " " << i;
      }
    }
  }
}

TEST(DropoutTest, EveryPartOfTheCounterAndKeyCounts) {
  const auto mask = [](const Dropout& dropout, int64_t row, int64_t position) {
    return DropoutMask(dropout, {at::full({1}, row, at::kLong), at::full({1}, position, at::kLong)},
                       64);
  };
  const at::Tensor first = mask({.probability = 0.5}, 0, 0);
  EXPECT_FALSE(at::equal(first, mask({.probability = 0.5, .seed = 1}, 0, 0)));
  EXPECT_FALSE(at::equal(first, mask({.probability = 0.5, .seed = uint64_t{1} << 32}, 0, 0)));
  EXPECT_FALSE(at::equal(first, mask({.probability = 0.5, .module = 1}, 0, 0)));
  EXPECT_FALSE(at::equal(first, mask({.probability = 0.5, .step = 1}, 0, 0)));
  EXPECT_FALSE(at::equal(first, mask({.probability = 0.5}, 1, 0)));
  EXPECT_FALSE(at::equal(first, mask({.probability = 0.5}, 0, 1)));
  EXPECT_TRUE(at::equal(first, mask({.probability = 0.5}, 0, 0)));
}

}  // namespace
}  // namespace pricer
