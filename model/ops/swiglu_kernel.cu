#include "model/cuda/device/values.cuh"
#include "model/cuda/launch.h"
#include "model/cuda/row_width.h"
#include "model/ops/swiglu_kernel.h"

namespace pricer::cuda {
namespace {

constexpr int kThreads = 256;

__device__ inline float Sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// Blocks lie along a row (x) and over rows (y, by turns where there are more).
template <typename T, int kWidth>
__global__ void __launch_bounds__(kThreads) swiglu(SwigluParams<T> params) {
  const int64_t c = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kWidth;
  if (c >= params.columns) return;
  for (int64_t row = blockIdx.y; row < params.rows; row += gridDim.y) {
    const T* const in = params.gate_up + row * 2 * params.columns + c;
    const Pack<T, kWidth> gate = LoadPack<kWidth>(in);
    const Pack<T, kWidth> up = LoadPack<kWidth>(in + params.columns);
    Pack<T, kWidth> out;
    for (int i = 0; i < kWidth; ++i) {
      const float g = ToFloat(gate.value[i]);
      out.value[i] = FromFloat<T>(g * Sigmoid(g) * ToFloat(up.value[i]));
    }
    StorePack(params.out + row * params.columns + c, out);
  }
}

template <typename T, int kWidth>
__global__ void __launch_bounds__(kThreads) swiglu_gradient(SwigluGradientParams<T> params) {
  const int64_t c = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kWidth;
  if (c >= params.columns) return;
  for (int64_t row = blockIdx.y; row < params.rows; row += gridDim.y) {
    const int64_t begin = row * 2 * params.columns + c;
    const Pack<T, kWidth> grad = LoadPack<kWidth>(params.grad + row * params.columns + c);
    const Pack<T, kWidth> gate = LoadPack<kWidth>(params.gate_up + begin);
    const Pack<T, kWidth> up = LoadPack<kWidth>(params.gate_up + begin + params.columns);
    Pack<T, kWidth> grad_gate, grad_up;
    for (int i = 0; i < kWidth; ++i) {
      const float g = ToFloat(gate.value[i]);
      const float sigmoid = Sigmoid(g);
      const float silu = g * sigmoid;
      const float flowing = ToFloat(grad.value[i]);
      grad_up.value[i] = FromFloat<T>(flowing * silu);
      grad_gate.value[i] =
          FromFloat<T>(flowing * ToFloat(up.value[i]) * (sigmoid + silu * (1.0f - sigmoid)));
    }
    StorePack(params.grad_gate_up + begin, grad_gate);
    StorePack(params.grad_gate_up + begin + params.columns, grad_up);
  }
}

dim3 Grid(int64_t rows, int64_t columns, int width) {
  return dim3(static_cast<unsigned>(Blocks(columns, kThreads * width)),
              static_cast<unsigned>(rows < kMaxBlocksY ? rows : kMaxBlocksY));
}

}  // namespace

template <typename T>
cudaError_t LaunchSwiglu(const SwigluParams<T>& params, cudaStream_t stream) {
  constexpr int kWidth = 16 / sizeof(T);
  if (!Fits16Bytes<T>(params.columns, {params.gate_up, params.out})) {
    return Launch(swiglu<T, 1>, Grid(params.rows, params.columns, 1), kThreads, stream, params);
  }
  return Launch(swiglu<T, kWidth>, Grid(params.rows, params.columns, kWidth), kThreads, stream,
                params);
}

template <typename T>
cudaError_t LaunchSwigluGradient(const SwigluGradientParams<T>& params, cudaStream_t stream) {
  constexpr int kWidth = 16 / sizeof(T);
  if (!Fits16Bytes<T>(params.columns, {params.grad, params.gate_up, params.grad_gate_up})) {
    return Launch(swiglu_gradient<T, 1>, Grid(params.rows, params.columns, 1), kThreads, stream,
                  params);
  }
  return Launch(swiglu_gradient<T, kWidth>, Grid(params.rows, params.columns, kWidth), kThreads,
                stream, params);
}

template cudaError_t LaunchSwiglu(const SwigluParams<float>&, cudaStream_t);
template cudaError_t LaunchSwiglu(const SwigluParams<__nv_bfloat16>&, cudaStream_t);
template cudaError_t LaunchSwigluGradient(const SwigluGradientParams<float>&, cudaStream_t);
template cudaError_t LaunchSwigluGradient(const SwigluGradientParams<__nv_bfloat16>&, cudaStream_t);

}  // namespace pricer::cuda
