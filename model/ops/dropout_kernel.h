#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

// Launcher of DropoutMask's kernel; its definition is model/ops/dropout.h. All pointers are to
// device memory.

namespace pricer::cuda {

struct DropoutMaskParams {
  int64_t rows = 0;
  int64_t channels = 0;
  uint32_t key[2] = {};
  uint32_t step = 0;
  uint32_t threshold = 0;             // p * 2^24
  const int64_t* row = nullptr;       // [rows]
  const int64_t* position = nullptr;  // [rows]
  uint32_t* mask = nullptr;           // [rows, ceil(channels / 32)]
};
cudaError_t LaunchDropoutMask(const DropoutMaskParams& params, cudaStream_t stream);

}  // namespace pricer::cuda
