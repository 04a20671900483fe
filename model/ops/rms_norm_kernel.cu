#include "model/cuda/device/reduce.cuh"
#include "model/cuda/device/values.cuh"
#include "model/cuda/launch.h"
#include "model/cuda/row_width.h"
#include "model/ops/rms_norm_kernel.h"

namespace pricer::cuda {
namespace {

constexpr int kThreads = 256;
// Of one multiprocessor at a time: leaves a thread 85 registers. Without a number the compiler
// spills some to have more blocks.
constexpr int kBlocks = 3;

// The row is read twice: what the first pass wrote or read is still in the cache.
template <typename T, int kWidth>
__global__ void __launch_bounds__(kThreads) add_rms_norm(AddRmsNormParams<T> params) {
  const int64_t begin = blockIdx.x * params.columns;
  const T* sum = params.residual + begin;
  float squares = 0.0f;
  for (int64_t c = threadIdx.x * kWidth; c < params.columns; c += kThreads * kWidth) {
    Pack<T, kWidth> pack = LoadPack<kWidth>(sum + c);
    if (params.delta != nullptr) {
      const Pack<T, kWidth> delta = LoadPack<kWidth>(params.delta + begin + c);
      for (int i = 0; i < kWidth; ++i) {
        pack.value[i] = FromFloat<T>(ToFloat(pack.value[i]) + ToFloat(delta.value[i]));
      }
      StorePack(params.sum + begin + c, pack);
    }
    for (int i = 0; i < kWidth; ++i) squares += ToFloat(pack.value[i]) * ToFloat(pack.value[i]);
  }
  const float mean_square = BlockSum<kThreads>(squares) / static_cast<float>(params.columns);
  const float inverse_rms = 1.0f / sqrtf(mean_square + params.epsilon);
  if (threadIdx.x == 0) params.inverse_rms[blockIdx.x] = inverse_rms;
  if (params.delta != nullptr) sum = params.sum + begin;
  for (int64_t c = threadIdx.x * kWidth; c < params.columns; c += kThreads * kWidth) {
    Pack<T, kWidth> pack = LoadPack<kWidth>(sum + c);
    const Pack<T, kWidth> weight = LoadPack<kWidth>(params.weight + c);
    for (int i = 0; i < kWidth; ++i) {
      pack.value[i] =
          FromFloat<T>(ToFloat(weight.value[i]) * (ToFloat(pack.value[i]) * inverse_rms));
    }
    StorePack(params.normed + begin + c, pack);
  }
}

template <typename T, int kWidth>
__global__ void __launch_bounds__(kThreads, kBlocks)
    rms_norm_gradient(RmsNormGradientParams<T> params) {
  const int64_t begin = blockIdx.x * params.columns;
  const float inverse_rms = params.inverse_rms[blockIdx.x];
  float dot = 0.0f;
  for (int64_t c = threadIdx.x * kWidth; c < params.columns; c += kThreads * kWidth) {
    const Pack<T, kWidth> grad = LoadPack<kWidth>(params.grad_normed + begin + c);
    const Pack<T, kWidth> weight = LoadPack<kWidth>(params.weight + c);
    const Pack<T, kWidth> x = LoadPack<kWidth>(params.sum + begin + c);
    for (int i = 0; i < kWidth; ++i) {
      dot += ToFloat(grad.value[i]) * ToFloat(weight.value[i]) * ToFloat(x.value[i]);
    }
  }
  const float along_x = BlockSum<kThreads>(dot) * inverse_rms * inverse_rms * inverse_rms /
                        static_cast<float>(params.columns);
  for (int64_t c = threadIdx.x * kWidth; c < params.columns; c += kThreads * kWidth) {
    const Pack<T, kWidth> grad = LoadPack<kWidth>(params.grad_normed + begin + c);
    const Pack<T, kWidth> weight = LoadPack<kWidth>(params.weight + c);
    const Pack<T, kWidth> x = LoadPack<kWidth>(params.sum + begin + c);
    float of_norm[kWidth];
    for (int i = 0; i < kWidth; ++i) {
      of_norm[i] = ToFloat(grad.value[i]) * ToFloat(weight.value[i]) * inverse_rms -
                   ToFloat(x.value[i]) * along_x;
    }
    if (params.grad_sum != nullptr) {
      const Pack<T, kWidth> along = LoadPack<kWidth>(params.grad_sum + begin + c);
      for (int i = 0; i < kWidth; ++i) of_norm[i] = ToFloat(along.value[i]) + of_norm[i];
    }
    Pack<T, kWidth> out;
    for (int i = 0; i < kWidth; ++i) out.value[i] = FromFloat<T>(of_norm[i]);
    StorePack(params.grad + begin + c, out);
  }
}

}  // namespace

template <typename T>
cudaError_t LaunchAddRmsNorm(const AddRmsNormParams<T>& params, cudaStream_t stream) {
  constexpr int kWidth = 16 / sizeof(T);
  const bool wide = Fits16Bytes<T>(
      params.columns, {params.residual, params.delta, params.weight, params.sum, params.normed});
  return Launch(wide ? add_rms_norm<T, kWidth> : add_rms_norm<T, 1>,
                static_cast<unsigned>(params.rows), kThreads, stream, params);
}

template <typename T>
cudaError_t LaunchRmsNormGradient(const RmsNormGradientParams<T>& params, cudaStream_t stream) {
  constexpr int kWidth = 16 / sizeof(T);
  const bool wide = Fits16Bytes<T>(params.columns, {params.grad_normed, params.grad_sum, params.sum,
                                                    params.weight, params.grad});
  return Launch(wide ? rms_norm_gradient<T, kWidth> : rms_norm_gradient<T, 1>,
                static_cast<unsigned>(params.rows), kThreads, stream, params);
}

template cudaError_t LaunchAddRmsNorm(const AddRmsNormParams<float>&, cudaStream_t);
template cudaError_t LaunchAddRmsNorm(const AddRmsNormParams<__nv_bfloat16>&, cudaStream_t);
template cudaError_t LaunchRmsNormGradient(const RmsNormGradientParams<float>&, cudaStream_t);
template cudaError_t LaunchRmsNormGradient(const RmsNormGradientParams<__nv_bfloat16>&,
                                           cudaStream_t);

}  // namespace pricer::cuda
