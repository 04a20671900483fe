#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace pricer::cuda {

inline constexpr int kWarpThreads = 32;
inline constexpr unsigned kWholeWarp = 0xffffffffu;

__device__ inline float WarpSum(float value) {
  for (int distance = kWarpThreads / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(kWholeWarp, value, distance);
  }
  return value;
}

__device__ inline float WarpMax(float value) {
  for (int distance = kWarpThreads / 2; distance > 0; distance /= 2) {
    value = fmaxf(value, __shfl_xor_sync(kWholeWarp, value, distance));
  }
  return value;
}

// Of a block of kThreads threads along x, in all of them; the order of additions is fixed. All
// threads call it.
template <int kThreads>
__device__ inline float BlockSum(float value) {
  static_assert(kThreads % kWarpThreads == 0 && kThreads / kWarpThreads <= kWarpThreads);
  __shared__ float of_warp[kWarpThreads];
  value = WarpSum(value);
  __syncthreads();  // an earlier call's values have been read
  if (threadIdx.x % kWarpThreads == 0) of_warp[threadIdx.x / kWarpThreads] = value;
  __syncthreads();
  float sum = 0.0f;
  for (int warp = 0; warp < kThreads / kWarpThreads; ++warp) sum += of_warp[warp];
  return sum;
}

template <int kThreads>
__device__ inline float BlockMax(float value) {
  static_assert(kThreads % kWarpThreads == 0 && kThreads / kWarpThreads <= kWarpThreads);
  __shared__ float of_warp[kWarpThreads];
  value = WarpMax(value);
  __syncthreads();  // an earlier call's values have been read
  if (threadIdx.x % kWarpThreads == 0) of_warp[threadIdx.x / kWarpThreads] = value;
  __syncthreads();
  float largest = of_warp[0];
  for (int warp = 1; warp < kThreads / kWarpThreads; ++warp) {
    largest = fmaxf(largest, of_warp[warp]);
  }
  return largest;
}

}  // namespace pricer::cuda
