#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "model/ops/attention.h"

// Attention and its gradient on either device, of queries and keys that are rotated already.

namespace pricer {

// Rows of `q` and rows of `kv`.
struct AttentionSequence {
  int64_t query_begin, query_end, key_begin, key_end;
};

// Everything that attention's forward and backward share. With answers_only there are queries for
// the last tokens of every sequence alone, in rows of their own; without, queries, keys and values
// share rows.
struct AttentionProblem {
  PackedLayout layout;
  AttentionShape shape;
  RotaryTable rotary;
  bool answers_only = false;

  int64_t sequences() const { return static_cast<int64_t>(layout.offsets.size()) - 1; }

  AttentionSequence At(int64_t b) const {
    const int64_t begin = layout.offsets[b];
    const int64_t end = layout.offsets[b + 1];
    if (!answers_only) return {begin, end, begin, end};
    return {layout.answer_offsets[b], layout.answer_offsets[b + 1], begin, end};
  }

  // Where keys begin in rows of keys, in heads.
  int64_t FirstKeyHead() const { return answers_only ? 0 : shape.heads; }

  // Rotates queries and keys in place.
  void Rotate(const at::Tensor& q, const at::Tensor& kv, bool inverse) const;
};

struct AttentionOutput {
  at::Tensor out;          // [rows of q, N D]
  at::Tensor log_sum_exp;  // of the scaled scores, as the device's gradient reads it
};

// What the gradients need besides where they go.
struct AttendedTensors {
  const at::Tensor& q;
  const at::Tensor& kv;
  const at::Tensor& out;
  const at::Tensor& grad_out;
  const at::Tensor& log_sum_exp;
};

// Writes the gradients of q and kv into tensors of their shapes, the same one where they share
// rows.
struct AttentionGradients {
  const at::Tensor& q;
  const at::Tensor& kv;
};

// What NodeAttention asks of the prompts: [M, N, D], and the log-sum-exp of the scores, [M, N]
// fp32.
struct PromptAttentionOutput {
  at::Tensor out;
  at::Tensor log_sum_exp;
};

namespace cpu {
AttentionOutput ForwardAttention(const AttentionProblem& problem, const at::Tensor& q,
                                 const at::Tensor& kv);
void BackwardAttention(const AttentionProblem& problem, const AttendedTensors& x,
                       const AttentionGradients& grads);
PromptAttentionOutput PromptAttention(const at::Tensor& q, const at::Tensor& prompt_kv,
                                      const std::vector<int64_t>& prompt_offsets,
                                      const std::vector<int64_t>& node_offsets,
                                      const AttentionShape& shape);
}  // namespace cpu

namespace cuda {
AttentionOutput ForwardAttention(const AttentionProblem& problem, const at::Tensor& q,
                                 const at::Tensor& kv);
void BackwardAttention(const AttentionProblem& problem, const AttendedTensors& x,
                       const AttentionGradients& grads);
PromptAttentionOutput PromptAttention(const at::Tensor& q, const at::Tensor& prompt_kv,
                                      const std::vector<int64_t>& prompt_offsets,
                                      const std::vector<int64_t>& node_offsets,
                                      const AttentionShape& shape);
}  // namespace cuda

}  // namespace pricer
