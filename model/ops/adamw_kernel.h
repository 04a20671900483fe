#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

// Launchers of the optimizer's kernels, over all tensors of an adapter at once: their gradients'
// norm, and AdamW, arXiv 1711.05101, algorithm 2, as torch.optim.AdamW rounds it. Nothing waits for
// the host: the norm stays on the device, where AdamW reads it. All pointers are to device memory.

namespace pricer::cuda {

// Elements that one block updates.
inline constexpr int64_t kAdamWChunk = 4096;
inline constexpr int kAdamWMaxGroups = 4;

struct AdamWTensor {
  float* parameter = nullptr;  // [count], and so the others
  const float* gradient = nullptr;
  float* first_moment = nullptr;
  float* second_moment = nullptr;
  int64_t count = 0;
  int32_t group = 0;  // whose learning rate it has
};

// Chunk c is the elements from tensor_chunk[c] * kAdamWChunk on of tensor chunk_tensor[c].
struct AdamWTable {
  const AdamWTensor* tensors = nullptr;
  const int32_t* chunk_tensor = nullptr;  // [chunks]
  const int32_t* tensor_chunk = nullptr;  // [chunks]
  int64_t chunks = 0;
};

struct GradientNormParams {
  AdamWTable table;
  float max_norm = 0;            // 0 = no clipping
  double* partial = nullptr;     // [chunks] workspace
  float* norm = nullptr;         // [1]: global L2 norm of all gradients
  float* clip_factor = nullptr;  // [1]: min(1, max_norm / (norm + 1e-6)); 1 without clipping
};
// As torch.nn.utils.clip_grad_norm_, but that gradients stay as they are: AdamW scales them.
cudaError_t LaunchGradientNorm(const GradientNormParams& params, cudaStream_t stream);

struct AdamWParams {
  AdamWTable table;
  float learning_rate[kAdamWMaxGroups] = {};
  float beta1 = 0;
  float beta2 = 0;
  float epsilon = 0;
  float weight_decay = 0;
  float bias_correction1 = 1;          // 1 - beta1^step
  float sqrt_bias_correction2 = 1;     // sqrt(1 - beta2^step)
  const float* norm = nullptr;         // nothing is updated where it is not finite
  const float* clip_factor = nullptr;  // of the gradients
};
cudaError_t LaunchAdamW(const AdamWParams& params, cudaStream_t stream);

}  // namespace pricer::cuda
