#include "model/cuda/device/reduce.cuh"
#include "model/cuda/launch.h"
#include "model/ops/cross_entropy_kernel.h"

namespace pricer::cuda {
namespace {

constexpr int kThreads = 256;

// One block a row.
__global__ void __launch_bounds__(kThreads) cross_entropy(CrossEntropyParams params) {
  const int64_t begin = blockIdx.x * params.classes;
  const float* const logits = params.logits + begin;
  float largest = -INFINITY;
  for (int64_t c = threadIdx.x; c < params.classes; c += kThreads) {
    largest = fmaxf(largest, logits[c]);
  }
  largest = BlockMax<kThreads>(largest);
  float sum = 0.0f;
  for (int64_t c = threadIdx.x; c < params.classes; c += kThreads) {
    sum += expf(logits[c] - largest);
  }
  // Apart from the largest logit: their sum would round away what small probabilities are made of.
  const float log_sum = logf(BlockSum<kThreads>(sum));
  const bool soft = params.probabilities != nullptr;
  const int64_t label = soft ? -1 : params.labels[blockIdx.x];
  float loss = 0.0f;
  float mass = 0.0f;
  for (int64_t c = threadIdx.x; c < params.classes; c += kThreads) {
    const float target = soft ? params.probabilities[begin + c] : (c == label ? 1.0f : 0.0f);
    // Not 0 * infinity where a logit is minus infinity.
    if (target != 0.0f) loss += target * (log_sum - (logits[c] - largest));
    mass += target;
  }
  loss = BlockSum<kThreads>(loss);
  if (threadIdx.x == 0) params.loss[blockIdx.x] = loss;
  if (params.grad_logits == nullptr) return;
  mass = BlockSum<kThreads>(mass);
  for (int64_t c = threadIdx.x; c < params.classes; c += kThreads) {
    const float target = soft ? params.probabilities[begin + c] : (c == label ? 1.0f : 0.0f);
    const float probability = expf(logits[c] - largest - log_sum);
    params.grad_logits[begin + c] = params.grad_scale * (mass * probability - target);
  }
}

}  // namespace

cudaError_t LaunchCrossEntropy(const CrossEntropyParams& params, cudaStream_t stream) {
  return Launch(cross_entropy, static_cast<unsigned>(params.rows), kThreads, stream, params);
}

}  // namespace pricer::cuda
