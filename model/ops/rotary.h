#pragma once

#include <ATen/ATen.h>

#include <cstdint>

#include "absl/types/span.h"

namespace pricer {

// Cosines and sines of rotary position embedding, arXiv 2104.09864, for positions from 0 on.
struct RotaryTable {
  at::Tensor cos;  // [positions, D / 2] fp32
  at::Tensor sin;  // [positions, D / 2] fp32
};

// Rotates the first `heads` heads of each row in place, in the half-split layout of Hugging Face
// checkpoints; `inverse` rotates back, which is the gradient. Not differentiable by itself.
void RotateInPlace(const at::Tensor& rows,  // [T, >= heads * D] fp32 or bf16, unit stride in a row
                   const at::Tensor& positions,  // [T] int64, all in the table
                   const RotaryTable& table, int64_t heads, bool inverse = false);

}  // namespace pricer
