#pragma once

// Sizes of LoRA's kernels that decide how much memory they take; model/ops/lora_kernel.h.

namespace pricer::cuda {

inline constexpr int kLoraRankTile = 16;
// Depth of a sum that one block computes; longer ones are cut, so that few rows fill the GPU too.
inline constexpr int kLoraDepthSplit = 1024;

}  // namespace pricer::cuda
