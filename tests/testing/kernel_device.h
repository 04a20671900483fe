#pragma once

#include <ATen/ATen.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <limits>
#include <optional>
#include <string>

// Where tests run kernels: on a GPU, or on the CPU as tests/testing/cuda does it. The same tests
// are linked with either.

namespace pricer {

struct KernelDevice {
  at::Device device;
  cudaStream_t stream;
};

// How a test's kernels run; a GPU knows the first alone.
enum class KernelOrder { kAny, kReversed };

// Skips the test where it gives nothing: there is no such device, or it has no such order.
std::optional<KernelDevice> FindKernelDevice(KernelOrder order);

// Waits for the launches before; a fault of theirs fails the test.
void FinishKernels(const KernelDevice& device);

class KernelTest : public ::testing::TestWithParam<KernelOrder> {
 protected:
  void SetUp() override {
    const std::optional<KernelDevice> found = FindKernelDevice(GetParam());
    if (!found.has_value()) GTEST_SKIP() << "no device";
    target_ = found;
  }

  // A copy on the device.
  at::Tensor Put(const at::Tensor& tensor) const {
    return tensor.defined() ? tensor.contiguous().to(target_->device, /*non_blocking=*/false,
                                                     /*copy=*/true)
                            : tensor;
  }
  // A new tensor on the device that no element of may be left as it is: not a number, or 0xff.
  at::Tensor Poisoned(at::IntArrayRef shape, at::ScalarType dtype) const {
    const auto options = at::TensorOptions(target_->device).dtype(dtype);
    if (at::isFloatingType(dtype)) {
      return at::full(shape, std::numeric_limits<double>::quiet_NaN(), options);
    }
    return at::full(shape, dtype == at::kByte ? 0xff : -1, options);
  }
  // After all launches.
  at::Tensor Get(const at::Tensor& tensor) const {
    FinishKernels(*target_);
    return tensor.cpu();
  }
  at::Device device() const { return target_->device; }
  cudaStream_t stream() const { return target_->stream; }
  bool emulated() const { return target_->device.is_cpu(); }

 private:
  std::optional<KernelDevice> target_;
};

// A tensor's elements as kernels name them: float, __nv_bfloat16, integers. Null where undefined.
template <typename T>
T* Elements(const at::Tensor& tensor) {
  return tensor.defined() ? static_cast<T*>(tensor.mutable_data_ptr()) : nullptr;
}

inline std::string KernelOrderName(const ::testing::TestParamInfo<KernelOrder>& info) {
  return info.param == KernelOrder::kAny ? "AnyOrder" : "ReversedOrder";
}

// Every test of the suite, in each order.
#define PRICER_KERNEL_SUITE(suite)                                                       \
  INSTANTIATE_TEST_SUITE_P(Threads, suite,                                               \
                           ::testing::Values(KernelOrder::kAny, KernelOrder::kReversed), \
                           KernelOrderName)

}  // namespace pricer
