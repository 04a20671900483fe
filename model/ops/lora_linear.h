#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "model/ops/dropout.h"
#include "model/ops/frozen_linear.h"

namespace pricer {

// Low-rank weights of one of the linears that share an input, for a range of rows.
struct LoraPart {
  int64_t linear = 0;  // which of them
  at::Tensor a;        // [R, in] fp32
  at::Tensor b;        // [out, R] fp32
  double scale = 1.0;
  Dropout dropout;  // of A's input
};

// Rows [begin, end) use these parts. Segments do not overlap.
struct LoraSegment {
  int64_t begin = 0;
  int64_t end = 0;
  std::vector<LoraPart> parts;
};

// How a linear's input was made, where that is cheap to do again: make(from) is the input, to the
// bit. On a GPU, gradients keep `from` instead of the input, which others keep anyway.
struct InputSource {
  at::Tensor from;
  std::function<at::Tensor(const at::Tensor& from)> make;  // records no gradient
};

// y = x W^T + bias of each linear, side by side, and y[rows, columns of the linear] += scale *
// (dropout(x[rows]) A^T) B^T for every part of every segment; summed in fp32 and rounded once, but
// for the low-rank states, which are rounded too. Differentiable in x, A and B. A row's result does
// not depend on the other rows.
at::Tensor LoraLinear(const at::Tensor& x,  // [T, in] fp32 or bf16, as the linears
                      const FrozenLinears& linears, const std::vector<LoraSegment>& segments = {},
                      const DropoutRows& rows = {},     // of x; where a part has dropout
                      const InputSource& source = {});  // of x; may be empty -> [T, out]

// x W^T of frozen weights, rows padded with zeros where there are few, since MKL's own row results
// are equal only from some number of rows on. Differentiable in x and weight by autograd itself.
at::Tensor RowStableLinear(const at::Tensor& x,        // [T, in] fp32 or bf16
                           const at::Tensor& weight);  // [out, in] as x -> [T, out]

}  // namespace pricer
