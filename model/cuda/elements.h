#pragma once

#include <ATen/ATen.h>
#include <cuda_bf16.h>

#include <cstdint>
#include <utility>

// Tensors' elements as kernels name them: for the *_cuda.cc files alone.

namespace pricer::cuda {

// Null where the tensor is undefined. REQUIRES: contiguous, and T is what its dtype is to kernels.
template <typename T>
const T* Read(const at::Tensor& tensor) {
  return tensor.defined() ? static_cast<const T*>(tensor.const_data_ptr()) : nullptr;
}
template <typename T>
T* Write(const at::Tensor& tensor) {
  return tensor.defined() ? static_cast<T*>(tensor.mutable_data_ptr()) : nullptr;
}

// Calls `function.template operator()<T>()` with the kernels' type of a dtype. REQUIRES: fp32 or
// bf16.
template <typename Function>
void DispatchKernelType(at::ScalarType dtype, Function&& function) {
  if (dtype == at::kFloat) {
    std::forward<Function>(function).template operator()<float>();
  } else {
    TORCH_CHECK(dtype == at::kBFloat16, "expected fp32 or bf16, got ", dtype);
    std::forward<Function>(function).template operator()<__nv_bfloat16>();
  }
}

}  // namespace pricer::cuda
