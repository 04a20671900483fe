#include <c10/cuda/CUDAStream.h>

#include "model/cuda/device.h"
#include "tests/testing/kernel_device.h"

namespace pricer {

std::optional<KernelDevice> FindKernelDevice(KernelOrder order) {
  const at::Device device(at::kCUDA, 0);
  if (order != KernelOrder::kAny || !cuda::CheckAvailable(device).ok()) return std::nullopt;
  return KernelDevice{device, c10::cuda::getCurrentCUDAStream().stream()};
}

void FinishKernels(const KernelDevice& device) {
  ASSERT_EQ(cudaStreamSynchronize(device.stream), cudaSuccess);
}

}  // namespace pricer
