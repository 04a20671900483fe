#pragma once

#include <ATen/ATen.h>

#include <memory>

// The GPU that tests of GPU code run on: a real one (tests/gpu) or the one that
// tests/testing/emulated_gpu.h stands in for. The same tests are linked with either.

namespace pricer::testing {

// While one is alive, what lies on `device` is computed as on a GPU. An emulated one is the CPU, so
// what is to be computed as on a CPU is computed before or afterwards.
class TestGpu {
 public:
  // Null where there is none: the test skips.
  static std::unique_ptr<TestGpu> Enter();
  virtual ~TestGpu() = default;

  virtual at::Device device() const = 0;
  virtual bool emulated() const = 0;
};

// Declares `name`, or skips the test.
#define PRICER_ENTER_GPU(name)                           \
  const auto name = ::pricer::testing::TestGpu::Enter(); \
  if (name == nullptr) {                                 \
    GTEST_SKIP() << "no device";                         \
  }

}  // namespace pricer::testing
