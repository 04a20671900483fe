#include "model/ops/nf4_kernel.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "model/nf4.h"
#include "tests/testing/kernel_device.h"

// Against model/nf4.h, which defines the format: bytes and values are equal to the bit.

namespace pricer {
namespace {

using Bf16 = __nv_bfloat16;

constexpr int64_t kCounts[] = {1, 2, 7, 63, 64, 65, 128, 1000, 64 * 256, 64 * 256 + 64, 40001};

template <typename T>
at::Tensor TensorOf(const std::vector<T>& values, at::ScalarType dtype) {
  at::Tensor tensor = at::empty({static_cast<int64_t>(values.size())}, dtype);
  if (!values.empty()) {
    std::memcpy(tensor.mutable_data_ptr(), values.data(), values.size() * sizeof(T));
  }
  return tensor;
}

std::vector<float> FloatsOf(const at::Tensor& values) {
  const at::Tensor floats = values.to(at::kFloat).contiguous();
  return {floats.const_data_ptr<float>(), floats.const_data_ptr<float>() + floats.numel()};
}

Nf4Tensor Quantized(const at::Tensor& values, bool nested) {
  const Dtype source = values.scalar_type() == at::kBFloat16 ? Dtype::kBF16
                       : values.scalar_type() == at::kHalf   ? Dtype::kF16
                                                             : Dtype::kF32;
  return *QuantizeNf4(FloatsOf(values), {values.numel()}, source, nested);
}

class Nf4KernelTest : public KernelTest {
 protected:
  template <typename T>
  void CheckDecode(const Nf4Tensor& tensor, at::ScalarType dtype);
  template <typename T>
  void CheckEncode(const at::Tensor& values);
};

template <typename T>
void Nf4KernelTest::CheckDecode(const Nf4Tensor& tensor, at::ScalarType dtype) {
  std::vector<float> values(tensor.element_count());
  DequantizeNf4(tensor, absl::MakeSpan(values));
  const at::Tensor expected = TensorOf(values, at::kFloat).to(dtype);
  const at::Tensor packed = Put(TensorOf(tensor.packed, at::kByte));
  const at::Tensor codes = Put(TensorOf(tensor.absmax_codes, at::kByte));
  const at::Tensor nested_absmax = Put(TensorOf(tensor.nested_absmax, at::kFloat));
  const at::Tensor offset = Put(at::full({1}, tensor.nested_offset, at::kFloat));
  const at::Tensor absmax = Put(TensorOf(tensor.absmax, at::kFloat));
  const at::Tensor map =
      Put(TensorOf(std::vector<float>(kDynamicMap.begin(), kDynamicMap.end()), at::kFloat));
  // One buffer starts on a multiple of 32 bytes, the other does not.
  for (int64_t before : {0, 3}) {
    const at::Tensor buffer = Poisoned({before + tensor.element_count()}, dtype);
    const at::Tensor out = buffer.narrow(0, before, tensor.element_count());
    const cuda::Nf4View view{.count = tensor.element_count(),
                             .packed = Elements<uint8_t>(packed),
                             .absmax_codes = Elements<uint8_t>(codes),
                             .nested_absmax = Elements<float>(nested_absmax),
                             .nested_offset = Elements<float>(offset),
                             .absmax = tensor.nested ? nullptr : Elements<float>(absmax)};
    ASSERT_EQ(cuda::LaunchNf4Decode(view, Elements<float>(map), Elements<T>(out), stream()),
              cudaSuccess);
    EXPECT_TRUE(at::equal(Get(out), expected)) << tensor.element_count() << " values";
  }
}

TEST_P(Nf4KernelTest, DecodesToTheSameBits) {
  for (int64_t count : kCounts) {
    const at::Tensor values = at::randn({count}) * 0.02;
    for (bool nested : {true, false}) {
      CheckDecode<float>(Quantized(values, nested), at::kFloat);
      CheckDecode<Bf16>(Quantized(values, nested), at::kBFloat16);
    }
  }
}

template <typename T>
void Nf4KernelTest::CheckEncode(const at::Tensor& values) {
  const Nf4Tensor expected = Quantized(values, /*nested=*/false);
  const at::Tensor values_there = Put(values);
  const at::Tensor packed = Poisoned({static_cast<int64_t>(expected.packed.size())}, at::kByte);
  const at::Tensor absmax = Poisoned({static_cast<int64_t>(expected.absmax.size())}, at::kFloat);
  const at::Tensor bad = Put(at::zeros({1}, at::kInt));
  ASSERT_EQ(cuda::LaunchNf4Encode<T>({.count = values.numel(),
                                      .values = Elements<T>(values_there),
                                      .packed = Elements<uint8_t>(packed),
                                      .absmax = Elements<float>(absmax),
                                      .bad = Elements<int32_t>(bad)},
                                     stream()),
            cudaSuccess);
  EXPECT_TRUE(at::equal(Get(packed), TensorOf(expected.packed, at::kByte))) << values.numel();
  EXPECT_TRUE(at::equal(Get(absmax), TensorOf(expected.absmax, at::kFloat))) << values.numel();
  EXPECT_EQ(Get(bad).item<int32_t>(), 0);
}

TEST_P(Nf4KernelTest, EncodesToTheSameBytes) {
  for (int64_t count : kCounts) {
    const at::Tensor values = at::randn({count}) * 0.02;
    CheckEncode<float>(values);
    CheckEncode<Bf16>(values.to(at::kBFloat16));
    CheckEncode<__half>(values.to(at::kHalf));
  }
}

TEST_P(Nf4KernelTest, EncodesBlocksOfZerosAndOfTinyValues) {
  at::Tensor values = at::zeros({256}, at::kFloat);
  values.narrow(0, 64, 64).copy_(at::randn({64}) * 1e-39);
  values.narrow(0, 128, 64).copy_(at::randn({64}) * 1e30);
  CheckEncode<float>(values);
}

TEST_P(Nf4KernelTest, SaysWhereValuesAreNotFinite) {
  for (const double value :
       {std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()}) {
    at::Tensor values = at::randn({200}, at::kFloat);
    values[130] = value;
    const at::Tensor there = Put(values);
    const at::Tensor packed = Poisoned({100}, at::kByte);
    const at::Tensor absmax = Poisoned({4}, at::kFloat);
    const at::Tensor bad = Put(at::zeros({1}, at::kInt));
    ASSERT_EQ(cuda::LaunchNf4Encode<float>({.count = 200,
                                            .values = Elements<float>(there),
                                            .packed = Elements<uint8_t>(packed),
                                            .absmax = Elements<float>(absmax),
                                            .bad = Elements<int32_t>(bad)},
                                           stream()),
              cudaSuccess);
    EXPECT_EQ(Get(bad).item<int32_t>(), 1) << value;
  }
}

TEST_P(Nf4KernelTest, NestsToTheSameBytes) {
  const std::vector<uint8_t> codes = MakeNf4DynamicCodes();
  const at::Tensor codes_there = Put(TensorOf(codes, at::kByte));
  for (int64_t count : {int64_t{64}, int64_t{64 * 255}, int64_t{64 * 256}, int64_t{64 * 700 + 3}}) {
    const at::Tensor values = at::randn({count}) * 0.02;
    const Nf4Tensor expected = Quantized(values, /*nested=*/true);
    const Nf4Tensor plain = Quantized(values, /*nested=*/false);
    const auto blocks = static_cast<int64_t>(plain.absmax.size());
    const at::Tensor absmax = Put(TensorOf(plain.absmax, at::kFloat));
    const at::Tensor offset = Put(at::full({1}, expected.nested_offset, at::kFloat));
    const at::Tensor absmax_codes = Poisoned({blocks}, at::kByte);
    const at::Tensor nested_absmax =
        Poisoned({static_cast<int64_t>(expected.nested_absmax.size())}, at::kFloat);
    ASSERT_EQ(cuda::LaunchNf4Nest({.blocks = blocks,
                                   .absmax = Elements<float>(absmax),
                                   .offset = Elements<float>(offset),
                                   .dynamic_codes = Elements<uint8_t>(codes_there),
                                   .absmax_codes = Elements<uint8_t>(absmax_codes),
                                   .nested_absmax = Elements<float>(nested_absmax)},
                                  stream()),
              cudaSuccess);
    EXPECT_TRUE(at::equal(Get(absmax_codes), TensorOf(expected.absmax_codes, at::kByte))) << count;
    EXPECT_TRUE(at::equal(Get(nested_absmax), TensorOf(expected.nested_absmax, at::kFloat)))
        << count;
  }
}

PRICER_KERNEL_SUITE(Nf4KernelTest);

}  // namespace
}  // namespace pricer
