#include "model/cuda/launch.h"
#include "model/ops/dropout_kernel.h"
#include "model/philox.h"

namespace pricer::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kChannelsPerWord = 32;

// A thread makes one word: 8 Philox blocks of 4 channels each. Blocks lie along a row (x) and over
// rows (y, by turns where there are more).
__global__ void __launch_bounds__(kThreads) dropout_mask(DropoutMaskParams params) {
  const int64_t words = (params.channels + kChannelsPerWord - 1) / kChannelsPerWord;
  const int64_t word = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (word >= words) return;
  for (int64_t row = blockIdx.y; row < params.rows; row += gridDim.y) {
    uint32_t bits = 0;
    for (int part = 0; part < kChannelsPerWord / 4; ++part) {
      const PhiloxCounter random = Philox4x32(
          {params.step, static_cast<uint32_t>(params.row[row]),
           static_cast<uint32_t>(params.position[row]), static_cast<uint32_t>(word * 8 + part)},
          {params.key[0], params.key[1]});
      for (int i = 0; i < 4; ++i) {
        const uint32_t kept = (random[i] >> 8) >= params.threshold ? 1u : 0u;
        bits |= kept << (4 * part + i);
      }
    }
    params.mask[row * words + word] = bits;
  }
}

}  // namespace

cudaError_t LaunchDropoutMask(const DropoutMaskParams& params, cudaStream_t stream) {
  const int64_t words = Blocks(params.channels, kChannelsPerWord);
  const dim3 blocks(static_cast<unsigned>(Blocks(words, kThreads)),
                    static_cast<unsigned>(params.rows < kMaxBlocksY ? params.rows : kMaxBlocksY));
  return Launch(dropout_mask, blocks, kThreads, stream, params);
}

}  // namespace pricer::cuda
