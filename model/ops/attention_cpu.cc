#include <algorithm>
#include <atomic>
#include <memory>
#include <type_traits>
#include <vector>

#include "model/ops/attention_forward.h"
#include "model/ops/attention_gradient.h"
#include "model/ops/attention_impl.h"
#include "model/ops/row_blocks.h"
#include "model/ops/rows.h"

namespace pricer::cpu {
namespace {

template <typename T>
StridedRows<T> HeadRows(const at::Tensor& rows, int64_t begin, int64_t column) {
  T* data = nullptr;
  if constexpr (std::is_const_v<T>) {
    data = rows.const_data_ptr<std::remove_const_t<T>>();
  } else {
    data = rows.mutable_data_ptr<T>();
  }
  return {data + begin * rows.stride(0) + column, rows.stride(0)};
}

// Calls body(attention, task) for all tasks, by an AttentionForward<T> of each thread. These are
// made here, so that memory does not depend on which threads are at work together.
template <typename T, typename Body>
void ParallelOverAttention(int64_t tasks, int64_t keys, int64_t head_dim, const Body& body) {
  std::vector<AttentionForward<T>> attentions;
  for (int64_t t = 0; t < TaskThreads(tasks); ++t) attentions.emplace_back(keys, head_dim);
  std::atomic<size_t> taken = 0;
  ParallelOverTasks(tasks, [&](std::atomic<int64_t>& next) {
    AttentionForward<T>& attention = attentions[taken++];
    for (int64_t task = next++; task < tasks; task = next++) body(attention, task);
  });
}

// Into how many tasks the G query heads of a key head are cut: more than one where there is little
// else to do in parallel.
int64_t HeadTasks(int64_t key_heads, int64_t group) {
  return key_heads < 4 * at::get_num_threads() ? group : 1;
}

template <typename T>
AttentionHeads<T> HeadsOf(const AttentionProblem& problem, const AttendedTensors& x, int64_t b,
                          int64_t kv_head, const at::Tensor& grad_q, const at::Tensor& grad_kv) {
  const AttentionShape& shape = problem.shape;
  const AttentionSequence s = problem.At(b);
  const int64_t d = shape.head_dim;
  const int64_t group = shape.heads / shape.kv_heads;
  const int64_t q_column = kv_head * group * d;
  const int64_t k_column = (problem.FirstKeyHead() + kv_head) * d;
  const int64_t v_column = k_column + shape.kv_heads * d;
  return {.queries = s.query_end - s.query_begin,
          .keys = s.key_end - s.key_begin,
          .q = HeadRows<const T>(x.q, s.query_begin, q_column),
          .out = HeadRows<const T>(x.out, s.query_begin, q_column),
          .grad_out = HeadRows<const T>(x.grad_out, s.query_begin, q_column),
          .k = HeadRows<const T>(x.kv, s.key_begin, k_column),
          .v = HeadRows<const T>(x.kv, s.key_begin, v_column),
          .log_sum_exp =
              x.log_sum_exp.const_data_ptr<float>() + s.query_begin * shape.heads + kv_head * group,
          .log_sum_exp_stride = shape.heads,
          .grad_q = HeadRows<T>(grad_q, s.query_begin, q_column),
          .grad_k = HeadRows<T>(grad_kv, s.key_begin, k_column),
          .grad_v = HeadRows<T>(grad_kv, s.key_begin, v_column)};
}

}  // namespace

AttentionOutput ForwardAttention(const AttentionProblem& problem, const at::Tensor& q,
                                 const at::Tensor& kv) {
  const AttentionShape& shape = problem.shape;
  const int64_t d = shape.head_dim;
  AttentionOutput made{at::empty({q.size(0), shape.heads * d}, q.options()),
                       at::empty({q.size(0), shape.heads}, at::kFloat)};
  const int64_t group = shape.heads / shape.kv_heads;
  int64_t most_keys = 0;
  for (int64_t b = 0; b < problem.sequences(); ++b) {
    const AttentionSequence s = problem.At(b);
    most_keys = std::max(most_keys, s.key_end - s.key_begin);
  }
  const int64_t key_heads = problem.sequences() * shape.kv_heads;
  const int64_t parts = HeadTasks(key_heads, group);
  DispatchComputeType(q.scalar_type(), [&]<typename T>() {
    ParallelOverAttention<T>(
        key_heads * parts, most_keys, d, [&](AttentionForward<T>& attention, int64_t task) {
          const int64_t part = task % parts;
          const int64_t kv_head = task / parts % shape.kv_heads;
          const AttentionSequence s = problem.At(task / parts / shape.kv_heads);
          const int64_t q_column = kv_head * group * d;
          const int64_t k_column = (problem.FirstKeyHead() + kv_head) * d;
          const int64_t v_column = k_column + shape.kv_heads * d;
          attention.Compute({.queries = s.query_end - s.query_begin,
                             .keys = s.key_end - s.key_begin,
                             .q = HeadRows<const T>(q, s.query_begin, q_column),
                             .k = HeadRows<const T>(kv, s.key_begin, k_column),
                             .v = HeadRows<const T>(kv, s.key_begin, v_column),
                             .out = HeadRows<T>(made.out, s.query_begin, q_column),
                             .log_sum_exp = made.log_sum_exp.mutable_data_ptr<float>() +
                                            s.query_begin * shape.heads + kv_head * group,
                             .log_sum_exp_stride = shape.heads},
                            part * group / parts, (part + 1) * group / parts);
        });
  });
  return made;
}

void BackwardAttention(const AttentionProblem& problem, const AttendedTensors& x,
                       const AttentionGradients& grads) {
  const AttentionShape& shape = problem.shape;
  DispatchComputeType(x.q.scalar_type(), [&]<typename T>() {
    const int64_t tasks = problem.sequences() * shape.kv_heads;
    const int64_t group = shape.heads / shape.kv_heads;
    AttentionGradientSizes sizes;
    for (int64_t b = 0; b < problem.sequences(); ++b) {
      const AttentionSequence s = problem.At(b);
      sizes.Include(s.query_end - s.query_begin, s.key_end - s.key_begin, group, shape.head_dim);
    }
    std::vector<std::unique_ptr<AttentionGradient<T>>> gradients;
    for (int64_t t = 0; t < TaskThreads(tasks); ++t) {
      gradients.push_back(MakeAttentionGradient<T>(sizes, group, shape.head_dim));
    }
    std::atomic<size_t> taken = 0;
    ParallelOverTasks(tasks, [&](std::atomic<int64_t>& next) {
      AttentionGradient<T>& gradient = *gradients[taken++];
      for (int64_t task = next++; task < tasks; task = next++) {
        gradient.Compute(HeadsOf<T>(problem, x, task / shape.kv_heads, task % shape.kv_heads,
                                    grads.q, grads.kv));
      }
    });
  });
}

PromptAttentionOutput PromptAttention(const at::Tensor& q, const at::Tensor& prompt_kv,
                                      const std::vector<int64_t>& prompt_offsets,
                                      const std::vector<int64_t>& node_offsets,
                                      const AttentionShape& shape) {
  const int64_t d = shape.head_dim;
  const int64_t group = shape.heads / shape.kv_heads;
  const auto sequences = static_cast<int64_t>(prompt_offsets.size()) - 1;
  at::Tensor out = at::empty({q.size(0), shape.heads, d}, q.options());
  at::Tensor log_sum_exp = at::empty({q.size(0), shape.heads}, at::kFloat);
  int64_t most_keys = 0;
  for (int64_t b = 0; b < sequences; ++b) {
    most_keys = std::max(most_keys, prompt_offsets[b + 1] - prompt_offsets[b]);
  }
  const int64_t parts = HeadTasks(sequences * shape.kv_heads, group);
  DispatchComputeType(q.scalar_type(), [&]<typename T>() {
    const at::Tensor rows = out.flatten(1);
    ParallelOverAttention<T>(
        sequences * shape.kv_heads * parts, most_keys, d,
        [&](AttentionForward<T>& attention, int64_t task) {
          const int64_t part = task % parts;
          const int64_t kv_head = task / parts % shape.kv_heads;
          const int64_t b = task / parts / shape.kv_heads;
          const int64_t first = node_offsets[b];
          const int64_t begin = prompt_offsets[b];
          if (node_offsets[b + 1] == first) return;
          const int64_t q_column = kv_head * group * d;
          attention.Compute(
              {.queries = node_offsets[b + 1] - first,
               .keys = prompt_offsets[b + 1] - begin,
               .causal = false,
               .q = HeadRows<const T>(q, first, q_column),
               .k = HeadRows<const T>(prompt_kv, begin, kv_head * d),
               .v = HeadRows<const T>(prompt_kv, begin, (shape.kv_heads + kv_head) * d),
               .out = HeadRows<T>(rows, first, q_column),
               .log_sum_exp =
                   log_sum_exp.mutable_data_ptr<float>() + first * shape.heads + kv_head * group,
               .log_sum_exp_stride = shape.heads},
              part * group / parts, (part + 1) * group / parts);
        });
  });
  return {out, log_sum_exp};
}

}  // namespace pricer::cpu
