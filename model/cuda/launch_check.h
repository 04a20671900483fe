#pragma once

#include <c10/util/Exception.h>
#include <cuda_runtime_api.h>

// Between tensors and kernels: for the *_cuda.cc files alone.

namespace pricer::cuda {

// Where the current thread's launches go.
cudaStream_t CurrentStream();

// Throws c10::Error, which names `what`, where a launch was refused.
inline void CheckLaunch(cudaError_t error, const char* what) {
  TORCH_CHECK(error == cudaSuccess, what, ": CUDA error ", static_cast<int>(error));
}

}  // namespace pricer::cuda
