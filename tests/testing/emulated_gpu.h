#pragma once

// Stands in for a GPU in tests: tensors stay on the CPU, where the GPU's own ops compute them with
// its own kernels (tests/testing/cuda). What no CPU has is replaced: streams by running at once,
// and flash attention by its formula.

namespace pricer {

// While one is alive, everything on the CPU is computed as on a GPU. One at a time.
class EmulatedGpu {
 public:
  EmulatedGpu();
  ~EmulatedGpu();
  EmulatedGpu(const EmulatedGpu&) = delete;
  EmulatedGpu& operator=(const EmulatedGpu&) = delete;

  // From here on it cannot be used any more.
  static void Lose();
};

}  // namespace pricer
