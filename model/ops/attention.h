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
  at::Tensor answer_positions;   // [A] int64; for AnswerAttention
  std::vector<int64_t> offsets;  // [B + 1]
  // [B + 1]; of the last tokens of every sequence that AnswerAttention is about.
  std::vector<int64_t> answer_offsets;
  // The same on the GPU, where the batch is there; undefined on a CPU.
  at::Tensor device_offsets;         // [B + 1] int32
  at::Tensor device_answer_offsets;  // [B + 1] int32
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

// Attention of tokens that follow a packed batch's sequences as the nodes of trees, [M] of one
// depth: each sees its sequence's prompt, its ancestors and itself. Queries and keys are rotated
// already. No gradient is recorded.
at::Tensor NodeAttention(const at::Tensor& q,          // [M, N D or more], rows contiguous
                         const at::Tensor& prompt_kv,  // [T, 2 K D]
                         const at::Tensor& path_kv,    // [M, depth, 2 K D], itself last
                         const std::vector<int64_t>& prompt_offsets,  // [B + 1], of T
                         const std::vector<int64_t>& node_offsets,    // [B + 1], of M
                         const AttentionShape& shape);                // -> [M, N D]

}  // namespace pricer
