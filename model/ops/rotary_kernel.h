#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

// Launcher of RotateInPlace's kernel; its definition is model/ops/rotary.h. All pointers are to
// device memory. T is float or __nv_bfloat16.

namespace pricer::cuda {

template <typename T>
struct RotaryParams {
  int64_t rows = 0;
  int64_t heads = 0;  // the first of each row
  int64_t half = 0;   // D / 2
  T* data = nullptr;  // [rows, heads 2 half], rows `stride` elements apart
  int64_t stride = 0;
  const int64_t* positions = nullptr;  // [rows]
  const float* cos = nullptr;          // [positions, half]
  const float* sin = nullptr;          // [positions, half]
  bool inverse = false;
};
template <typename T>
cudaError_t LaunchRotary(const RotaryParams<T>& params, cudaStream_t stream);

}  // namespace pricer::cuda
