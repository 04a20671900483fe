#include <algorithm>
#include <cmath>
#include <vector>

#include "model/cuda/device.h"
#include "model/cuda/flash_attention.h"
#include "model/ops/attention_impl.h"

namespace pricer::cuda {
namespace {

int64_t LongestOf(const std::vector<int64_t>& offsets) {
  int64_t longest = 0;
  for (size_t b = 0; b + 1 < offsets.size(); ++b) {
    longest = std::max(longest, offsets[b + 1] - offsets[b]);
  }
  return longest;
}

at::Tensor DeviceOffsets(const std::vector<int64_t>& offsets, at::Device device) {
  return Upload(at::tensor(offsets, at::kLong).to(at::kInt), device);
}

// The kernel takes head dimensions that are multiples of 8: zeros behind change nothing.
constexpr int64_t kDimTile = 8;
int64_t PaddedDim(int64_t dim) { return (dim + kDimTile - 1) / kDimTile * kDimTile; }

// Heads of rows, [rows, heads, D padded]: a view where nothing is padded.
at::Tensor Heads(const at::Tensor& rows, int64_t first, int64_t heads, int64_t dim) {
  const at::Tensor view =
      rows.narrow(1, first * dim, heads * dim).unflatten(1, at::IntArrayRef({heads, dim}));
  return PaddedDim(dim) == dim ? view : at::constant_pad_nd(view, {0, PaddedDim(dim) - dim});
}

FlashInputs InputsOf(const AttentionProblem& problem, const at::Tensor& q, const at::Tensor& kv) {
  const auto& [heads, kv_heads, dim] = problem.shape;
  const int64_t first_key = problem.FirstKeyHead();
  return {.q = Heads(q, 0, heads, dim),
          .k = Heads(kv, first_key, kv_heads, dim),
          .v = Heads(kv, first_key + kv_heads, kv_heads, dim),
          .scale = 1.0 / std::sqrt(static_cast<double>(dim))};
}

FlashSequences SequencesOf(const AttentionProblem& problem) {
  const PackedLayout& layout = problem.layout;
  FlashSequences sequences{.query_offsets = layout.device_offsets,
                           .key_offsets = layout.device_offsets,
                           .max_queries = LongestOf(layout.offsets),
                           .max_keys = LongestOf(layout.offsets)};
  if (problem.answers_only) {
    sequences.query_offsets = layout.device_answer_offsets;
    sequences.max_queries = LongestOf(layout.answer_offsets);
  }
  return sequences;
}

}  // namespace

AttentionOutput ForwardAttention(const AttentionProblem& problem, const at::Tensor& q,
                                 const at::Tensor& kv) {
  const FlashOutput made = FlashForward(InputsOf(problem, q, kv), SequencesOf(problem));
  const at::Tensor heads = made.out.narrow(2, 0, problem.shape.head_dim);
  return {heads.reshape({q.size(0), -1}), made.log_sum_exp};
}

void BackwardAttention(const AttentionProblem& problem, const AttendedTensors& x,
                       const AttentionGradients& grads) {
  const auto& [heads, kv_heads, dim] = problem.shape;
  const FlashInputs inputs = InputsOf(problem, x.q, x.kv);
  const FlashOutput made{Heads(x.out, 0, heads, dim), x.log_sum_exp};
  const FlashGradients found =
      FlashBackward(Heads(x.grad_out, 0, heads, dim), inputs, made, SequencesOf(problem));
  const auto write = [dim = dim](const at::Tensor& to, int64_t first, const at::Tensor& from) {
    to.narrow(1, first * dim, from.size(1) * dim)
        .unflatten(1, at::IntArrayRef({from.size(1), dim}))
        .copy_(from.narrow(2, 0, dim));
  };
  write(grads.q, 0, found.q);
  write(grads.kv, problem.FirstKeyHead(), found.k);
  write(grads.kv, problem.FirstKeyHead() + kv_heads, found.v);
}

PromptAttentionOutput PromptAttention(const at::Tensor& q, const at::Tensor& prompt_kv,
                                      const std::vector<int64_t>& prompt_offsets,
                                      const std::vector<int64_t>& node_offsets,
                                      const AttentionShape& shape) {
  const auto& [heads, kv_heads, dim] = shape;
  const FlashInputs inputs{.q = Heads(q, 0, heads, dim),
                           .k = Heads(prompt_kv, 0, kv_heads, dim),
                           .v = Heads(prompt_kv, kv_heads, kv_heads, dim),
                           .scale = 1.0 / std::sqrt(static_cast<double>(dim))};
  const FlashOutput made =
      FlashForward(inputs, {.query_offsets = DeviceOffsets(node_offsets, q.device()),
                            .key_offsets = DeviceOffsets(prompt_offsets, q.device()),
                            .max_queries = LongestOf(node_offsets),
                            .max_keys = LongestOf(prompt_offsets),
                            .causal = false});
  return {made.out.narrow(2, 0, dim), made.log_sum_exp.t()};
}

}  // namespace pricer::cuda
