#include "model/cuda/device/values.cuh"
#include "model/cuda/launch.h"
#include "model/cuda/row_width.h"
#include "model/ops/rotary_kernel.h"

namespace pricer::cuda {
namespace {

constexpr int kThreads = 256;

// A thread rotates kWidth pairs of one head. Blocks lie along a row (x) and over rows (y, by turns
// where there are more).
template <typename T, int kWidth>
__global__ void __launch_bounds__(kThreads) rotate(RotaryParams<T> params) {
  const int64_t packs = params.half / kWidth;  // of a head
  const int64_t pack = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (pack >= params.heads * packs) return;
  const int64_t head = pack / packs;
  const int64_t pair = pack % packs * kWidth;
  for (int64_t row = blockIdx.y; row < params.rows; row += gridDim.y) {
    T* const at = params.data + row * params.stride + head * 2 * params.half + pair;
    const int64_t angle = params.positions[row] * params.half + pair;
    Pack<T, kWidth> low = LoadPack<kWidth>(at);
    Pack<T, kWidth> high = LoadPack<kWidth>(at + params.half);
    for (int i = 0; i < kWidth; ++i) {
      const float x1 = ToFloat(low.value[i]);
      const float x2 = ToFloat(high.value[i]);
      const float cos = params.cos[angle + i];
      const float sin = params.inverse ? -params.sin[angle + i] : params.sin[angle + i];
      low.value[i] = FromFloat<T>(x1 * cos - x2 * sin);
      high.value[i] = FromFloat<T>(x2 * cos + x1 * sin);
    }
    StorePack(at, low);
    StorePack(at + params.half, high);
  }
}

}  // namespace

template <typename T>
cudaError_t LaunchRotary(const RotaryParams<T>& params, cudaStream_t stream) {
  constexpr int kWidth = 16 / sizeof(T);
  const bool wide = params.half % kWidth == 0 && Fits16Bytes<T>(params.stride, {params.data});
  const int64_t threads = params.heads * params.half / (wide ? kWidth : 1);
  const dim3 blocks(static_cast<unsigned>(Blocks(threads, kThreads)),
                    static_cast<unsigned>(params.rows < kMaxBlocksY ? params.rows : kMaxBlocksY));
  return Launch(wide ? rotate<T, kWidth> : rotate<T, 1>, blocks, kThreads, stream, params);
}

template cudaError_t LaunchRotary(const RotaryParams<float>&, cudaStream_t);
template cudaError_t LaunchRotary(const RotaryParams<__nv_bfloat16>&, cudaStream_t);

}  // namespace pricer::cuda
