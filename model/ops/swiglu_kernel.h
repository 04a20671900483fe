#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

// Launchers of Swiglu's kernels; its definition is model/ops/swiglu.h. All pointers are to device
// memory. T is float or __nv_bfloat16.

namespace pricer::cuda {

template <typename T>
struct SwigluParams {
  int64_t rows = 0;
  int64_t columns = 0;         // F
  const T* gate_up = nullptr;  // [rows, 2 F]
  T* out = nullptr;            // [rows, F]
};
template <typename T>
cudaError_t LaunchSwiglu(const SwigluParams<T>& params, cudaStream_t stream);

template <typename T>
struct SwigluGradientParams {
  int64_t rows = 0;
  int64_t columns = 0;         // F
  const T* grad = nullptr;     // [rows, F]
  const T* gate_up = nullptr;  // [rows, 2 F]
  T* grad_gate_up = nullptr;   // [rows, 2 F]
};
template <typename T>
cudaError_t LaunchSwigluGradient(const SwigluGradientParams<T>& params, cudaStream_t stream);

}  // namespace pricer::cuda
