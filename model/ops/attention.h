#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

#include "model/ops/rotary.h"

namespace pricer {

// What attention needs to know of a packed batch besides its activations.
struct AttentionShape {
  int64_t heads = 0;     // N
  int64_t kv_heads = 0;  // K, divides N
  int64_t head_dim = 0;  // D
};

struct PackedLayout {
  at::Tensor positions;          // [T] int64
  std::vector<int64_t> offsets;  // [B + 1]
  // [B + 1]; of the last tokens of every sequence that AnswerAttention is about.
  std::vector<int64_t> answer_offsets;
};

// Rotary embedding and causal attention inside each sequence; a sequence's rows depend on nothing
// outside it. `qkv` is consumed: its queries and keys are rotated in place. Differentiable.
at::Tensor PackedAttention(const at::Tensor& qkv,  // [T, (N + 2K) D] fp32 or bf16, contiguous
                           const PackedLayout& layout, const AttentionShape& shape,
                           const RotaryTable& rotary);  // -> [T, N D]

// The same for the answers alone, A tokens in all. `q` and `kv` are consumed. Differentiable.
at::Tensor AnswerAttention(const at::Tensor& q,   // [A, N D]
                           const at::Tensor& kv,  // [T, 2 K D]
                           const PackedLayout& layout, const AttentionShape& shape,
                           const RotaryTable& rotary);  // -> [A, N D]

}  // namespace pricer
