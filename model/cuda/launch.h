#pragma once

#include <cuda_runtime.h>

#include <cstdint>

// How every .cu file launches its kernels.

namespace pricer::cuda {

// As many blocks as it takes for `count` elements, so many a block.
inline int64_t Blocks(int64_t count, int64_t each) { return (count + each - 1) / each; }

// Most blocks of a launch along y and z.
inline constexpr int64_t kMaxBlocksY = 65535;

// Launches `kernel` on `stream`; nothing where there is no block. Returns what the launch returned:
// it does not wait, so that faults of the kernel itself show in a later call.
template <typename... Parameters, typename... Arguments>
cudaError_t Launch(void (*kernel)(Parameters...), dim3 blocks, dim3 threads, cudaStream_t stream,
                   Arguments... arguments) {
  if (blocks.x == 0 || blocks.y == 0 || blocks.z == 0) return cudaSuccess;
  cudaLaunchConfig_t config = {};
  config.gridDim = blocks;
  config.blockDim = threads;
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
}

}  // namespace pricer::cuda
