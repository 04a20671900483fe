#pragma once

#include <ATen/ATen.h>

namespace pricer {

// silu(gate) * up, arXiv 2002.05202, of rows that hold gate and up side by side. Rows do not depend
// on each other, to the bit. Differentiable.
at::Tensor Swiglu(const at::Tensor& gate_up);  // [T, 2F] fp32 or bf16, contiguous -> [T, F]

}  // namespace pricer
