#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

#include "model/ops/lora_linear.h"

// LoraLinear's arithmetic and its gradients, in blocks of rows that stay in the cache, by ATen's
// intra-op threads. What is computed does not depend on their number. No gradient is recorded.

namespace pricer {

// One part of a segment, and where it stands.
struct PlannedPart {
  int64_t linear = 0;
  int64_t out_begin = 0;  // the linear's columns
  int64_t out_size = 0;
  int64_t rank = 0;
  int64_t rank_begin = 0;   // in the segment's low-rank states
  int64_t padded_rank = 0;  // columns there; those behind `rank` are zeros
  double scale = 1.0;       // LoRA's by dropout's
  at::Tensor a, b;          // as LoraPart's
  at::Tensor mask;          // of DropoutMask; undefined without dropout
};

struct PlannedSegment {
  int64_t begin = 0;
  int64_t end = 0;
  std::vector<PlannedPart> parts;
  int64_t ranks = 0;  // columns of the low-rank states: sum of padded_rank

  int64_t rows() const { return end - begin; }
  bool has_dropout() const { return !parts.empty() && parts[0].mask.defined(); }
};

struct LoraPlan {
  FrozenLinears linears;
  std::vector<PlannedSegment> segments;
  int64_t in = 0;
  int64_t out = 0;  // of all linears

  // Without segments.
  explicit LoraPlan(const FrozenLinears& linears);
};

struct LoraGradients {
  at::Tensor x;               // [T, in], undefined where it is not wanted
  std::vector<at::Tensor> a;  // [R, in] fp32, of the parts of all segments
  std::vector<at::Tensor> b;  // [out, R] fp32
};

// Returns y [T, out]. Into states, if not null, the low-rank states as the gradients read them: on
// a CPU of each segment, scaled, [ranks, StateColumns(rows)] in the compute dtype, a column for
// each row and zeros behind; on a GPU those of model/ops/lora_kernel.h, one tensor.
at::Tensor LoraForward(const LoraPlan& plan, const at::Tensor& x, std::vector<at::Tensor>* states);

// With G the gradient of y, of each part's columns, and h its states:
//   dB = G^T h, dh = scale G B, dA = dh^T keep(x), dx = G W + keep(dh A).
LoraGradients LoraBackward(const LoraPlan& plan, const at::Tensor& x,
                           const std::vector<at::Tensor>& states, const at::Tensor& grad,
                           bool wants_x);

// The same without LoRA: y [T, out] of x [T, in], and dx of the gradient of y.
at::Tensor LinearForward(const at::Tensor& x, const FrozenLinears& linears);
at::Tensor LinearInputGradient(const at::Tensor& grad, const FrozenLinears& linears);

// Those of either device.
namespace cpu {
at::Tensor LoraForward(const LoraPlan& plan, const at::Tensor& x, std::vector<at::Tensor>* states);
LoraGradients LoraBackward(const LoraPlan& plan, const at::Tensor& x,
                           const std::vector<at::Tensor>& states, const at::Tensor& grad,
                           bool wants_x);
at::Tensor LinearInputGradient(const at::Tensor& grad, const FrozenLinears& linears);
}  // namespace cpu

namespace cuda {
at::Tensor LoraForward(const LoraPlan& plan, const at::Tensor& x, std::vector<at::Tensor>* states);
LoraGradients LoraBackward(const LoraPlan& plan, const at::Tensor& x,
                           const std::vector<at::Tensor>& states, const at::Tensor& grad,
                           bool wants_x);
at::Tensor LinearInputGradient(const at::Tensor& grad, const FrozenLinears& linears);
}  // namespace cuda

}  // namespace pricer
