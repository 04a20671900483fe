#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

// Launcher of the answer rows' loss and its gradient in one pass; their definition is
// model/ops/cross_entropy.h. All pointers are to device memory.

namespace pricer::cuda {

struct CrossEntropyParams {
  int64_t rows = 0;
  int64_t classes = 0;
  const float* logits = nullptr;         // [rows, classes]
  const float* probabilities = nullptr;  // [rows, classes], or null:
  const int64_t* labels = nullptr;       // [rows]
  float grad_scale = 1.0f;               // of the loss that the gradient is of
  float* loss = nullptr;                 // [rows]
  float* grad_logits = nullptr;          // [rows, classes], or null: not wanted
};
cudaError_t LaunchCrossEntropy(const CrossEntropyParams& params, cudaStream_t stream);

}  // namespace pricer::cuda
