#include "model/cuda/device/reduce.cuh"
#include "model/cuda/launch.h"
#include "model/ops/adamw_kernel.h"

namespace pricer::cuda {
namespace {

constexpr int kThreads = 256;

struct Chunk {
  int64_t begin;
  int64_t end;
};

__device__ inline Chunk ChunkOf(const AdamWTable& table, const AdamWTensor& tensor, int64_t chunk) {
  const int64_t begin = table.tensor_chunk[chunk] * kAdamWChunk;
  const int64_t end = begin + kAdamWChunk;
  return {begin, end < tensor.count ? end : tensor.count};
}

// One block a chunk.
__global__ void __launch_bounds__(kThreads) gradient_squares(GradientNormParams params) {
  const AdamWTensor& tensor = params.table.tensors[params.table.chunk_tensor[blockIdx.x]];
  const Chunk chunk = ChunkOf(params.table, tensor, blockIdx.x);
  float squares = 0.0f;
  for (int64_t i = chunk.begin + threadIdx.x; i < chunk.end; i += kThreads) {
    squares += tensor.gradient[i] * tensor.gradient[i];
  }
  squares = BlockSum<kThreads>(squares);
  if (threadIdx.x == 0) params.partial[blockIdx.x] = squares;
}

// One block in all. Doubles, since there may be many chunks.
__global__ void __launch_bounds__(kThreads) gradient_norm(GradientNormParams params) {
  __shared__ double sums[kThreads];
  double sum = 0.0;
  for (int64_t chunk = threadIdx.x; chunk < params.table.chunks; chunk += kThreads) {
    sum += params.partial[chunk];
  }
  sums[threadIdx.x] = sum;
  for (int distance = kThreads / 2; distance > 0; distance /= 2) {
    __syncthreads();
    const int i = static_cast<int>(threadIdx.x);
    if (i < distance) sums[i] += sums[i + distance];
  }
  if (threadIdx.x != 0) return;
  const auto norm = static_cast<float>(sqrt(sums[0]));
  *params.norm = norm;
  *params.clip_factor =
      params.max_norm > 0.0f ? fminf(1.0f, params.max_norm / (norm + 1e-6f)) : 1.0f;
}

// One block a chunk.
__global__ void __launch_bounds__(kThreads) adamw(AdamWParams params) {
  if (!isfinite(*params.norm)) return;
  const AdamWTensor& tensor = params.table.tensors[params.table.chunk_tensor[blockIdx.x]];
  const Chunk chunk = ChunkOf(params.table, tensor, blockIdx.x);
  const float factor = *params.clip_factor;
  const float rate = params.learning_rate[tensor.group];
  for (int64_t i = chunk.begin + threadIdx.x; i < chunk.end; i += kThreads) {
    const float gradient = factor * tensor.gradient[i];
    float parameter = tensor.parameter[i];
    parameter -= rate * params.weight_decay * parameter;
    const float first = params.beta1 * tensor.first_moment[i] + (1.0f - params.beta1) * gradient;
    const float second =
        params.beta2 * tensor.second_moment[i] + (1.0f - params.beta2) * gradient * gradient;
    const float denominator = sqrtf(second) / params.sqrt_bias_correction2 + params.epsilon;
    tensor.first_moment[i] = first;
    tensor.second_moment[i] = second;
    tensor.parameter[i] = parameter - rate / params.bias_correction1 * first / denominator;
  }
}

}  // namespace

cudaError_t LaunchGradientNorm(const GradientNormParams& params, cudaStream_t stream) {
  const cudaError_t error = Launch(gradient_squares, static_cast<unsigned>(params.table.chunks),
                                   kThreads, stream, params);
  if (error != cudaSuccess) return error;
  return Launch(gradient_norm, 1, kThreads, stream, params);
}

cudaError_t LaunchAdamW(const AdamWParams& params, cudaStream_t stream) {
  return Launch(adamw, static_cast<unsigned>(params.table.chunks), kThreads, stream, params);
}

}  // namespace pricer::cuda
