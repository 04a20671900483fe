#pragma once

// The host's half of the CUDA runtime, as far as kernels and their launchers use it; see README.md.

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidConfiguration = 9 };

using cudaStream_t = void*;

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1)  // NOLINT: as CUDA's
      : x(x), y(y), z(z) {}
};
