#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

#include "model/ops/dropout.h"

namespace pricer {

// Low-rank weights of some of the linears that share an input, for a range of rows.
struct LoraPart {
  int64_t out_begin = 0;  // columns of the product that this linear owns
  int64_t out_size = 0;
  at::Tensor a;  // [R, in] fp32
  at::Tensor b;  // [out_size, R] fp32
  double scale = 1.0;
  Dropout dropout;  // of A's input
};

// Rows [begin, end) use these parts. Segments do not overlap.
struct LoraSegment {
  int64_t begin = 0;
  int64_t end = 0;
  std::vector<LoraPart> parts;
};

// y = x W^T + bias, and y[rows, columns] += scale * (dropout(x[rows]) A^T) B^T for every part of
// every segment. The weights of linears that share an input may be laid one below the other in W. W
// and bias are frozen; differentiable in x, A and B. A row's result does not depend on the other
// rows: products of few rows are padded with zero rows, since MKL's own row results are equal only
// from some number of rows on.
at::Tensor LoraLinear(const at::Tensor& x,       // [T, in] fp32 or bf16
                      const at::Tensor& weight,  // [out, in] as x
                      const at::Tensor& bias,    // [out] as x, or undefined
                      const std::vector<LoraSegment>& segments = {},
                      const DropoutRows& rows = {});  // of x; where a part has dropout -> [T, out]

// x W^T + bias of frozen weights, row by row as above. Differentiable in x and weight by autograd
// itself.
at::Tensor RowStableLinear(const at::Tensor& x, const at::Tensor& weight,
                           const at::Tensor& bias = at::Tensor());

}  // namespace pricer
