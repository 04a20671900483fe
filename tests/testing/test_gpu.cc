#include "tests/testing/test_gpu.h"

#include "model/cuda/device.h"

namespace pricer::testing {
namespace {

class FirstGpu : public TestGpu {
 public:
  at::Device device() const override { return at::Device(at::kCUDA, 0); }
  bool emulated() const override { return false; }
};

}  // namespace

std::unique_ptr<TestGpu> TestGpu::Enter() {
  if (!cuda::CheckAvailable(at::Device(at::kCUDA, 0)).ok()) return nullptr;
  return std::make_unique<FirstGpu>();
}

}  // namespace pricer::testing
