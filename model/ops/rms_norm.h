#pragma once

#include <ATen/ATen.h>

// Root mean square layer normalization, arXiv 1910.07467, with the addition to the residual stream
// that precedes it.

namespace pricer {

struct AddRmsNormOutput {
  at::Tensor sum;     // [T, H]
  at::Tensor normed;  // [T, H]
};

// sum = residual + delta; normed = weight * sum / sqrt(mean(sum^2) + epsilon), computed in fp32.
// With an undefined `delta` sum is `residual` itself. Rows do not depend on each other, to the bit.
// Differentiable in residual and delta; `weight` is frozen.
AddRmsNormOutput AddRmsNorm(const at::Tensor& residual,  // [T, H] fp32 or bf16, contiguous
                            const at::Tensor& delta,     // [T, H] contiguous, or undefined
                            const at::Tensor& weight,    // [H]
                            double epsilon);

}  // namespace pricer
