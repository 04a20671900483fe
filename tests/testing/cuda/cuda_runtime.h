#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "tests/testing/cuda/cuda_runtime_api.h"
#include "tests/testing/cuda/grid.h"

// The language of kernels and the runtime that launches them; see README.md.

#define __global__
#define __device__
#define __host__
#define __grid_constant__
#define __launch_bounds__(...)
// One block runs at a time, and all of its threads on one thread of the host's.
#define __shared__ static

using pricer::emulated::blockDim;
using pricer::emulated::blockIdx;
using pricer::emulated::gridDim;
using pricer::emulated::threadIdx;

inline void __syncthreads() { pricer::emulated::SyncBlock(); }

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask) {
  static_assert(sizeof(T) <= sizeof(uint64_t) && std::is_trivially_copyable_v<T>);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = pricer::emulated::ExchangeXor(mask, bits, lane_mask);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline uint32_t __float_as_uint(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}
inline float __uint_as_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}
using std::isfinite;

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  cudaStream_t stream;
};

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  // What the driver would refuse.
  const dim3& blocks = config->gridDim;
  const dim3& threads = config->blockDim;
  constexpr unsigned kMostBlocks = 65535;
  constexpr unsigned kMostThreads = 1024;
  constexpr size_t kMostParameterBytes = 32764;
  static_assert((sizeof(Parameters) + ... + 0) <= kMostParameterBytes);
  if (blocks.x == 0 || blocks.y == 0 || blocks.z == 0 || blocks.x > 0x7fffffffu ||
      blocks.y > kMostBlocks || blocks.z > kMostBlocks ||
      threads.x * threads.y * threads.z > kMostThreads) {
    return cudaErrorInvalidConfiguration;
  }
  pricer::emulated::RunGrid(blocks, threads, [&] { kernel(arguments...); });
  return cudaSuccess;
}
