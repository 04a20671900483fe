#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

// Launchers of AddRmsNorm's kernels; its definition is model/ops/rms_norm.h. One block a row. All
// pointers are to device memory. T is float or __nv_bfloat16.

namespace pricer::cuda {

template <typename T>
struct AddRmsNormParams {
  int64_t rows = 0;
  int64_t columns = 0;
  float epsilon = 0;
  const T* residual = nullptr;   // [rows, columns]
  const T* delta = nullptr;      // [rows, columns]; null: sum is residual and not written
  const T* weight = nullptr;     // [columns]
  T* sum = nullptr;              // [rows, columns]
  T* normed = nullptr;           // [rows, columns]
  float* inverse_rms = nullptr;  // [rows]
};
template <typename T>
cudaError_t LaunchAddRmsNorm(const AddRmsNormParams<T>& params, cudaStream_t stream);

template <typename T>
struct RmsNormGradientParams {
  int64_t rows = 0;
  int64_t columns = 0;
  const T* grad_normed = nullptr;      // [rows, columns]
  const T* grad_sum = nullptr;         // [rows, columns] or null: zeros
  const T* sum = nullptr;              // [rows, columns]
  const T* weight = nullptr;           // [columns]
  const float* inverse_rms = nullptr;  // [rows]
  T* grad = nullptr;                   // [rows, columns], of residual and delta alike
};
template <typename T>
cudaError_t LaunchRmsNormGradient(const RmsNormGradientParams<T>& params, cudaStream_t stream);

}  // namespace pricer::cuda
