#include "model/ops/attention.h"

#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <memory>
#include <numeric>
#include <type_traits>
#include <utility>

#include "model/ops/attention_forward.h"
#include "model/ops/attention_gradient.h"
#include "model/ops/row_blocks.h"
#include "model/ops/rows.h"

namespace pricer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Rows of `q` and rows of `kv`.
struct Sequence {
  int64_t query_begin, query_end, key_begin, key_end;
};

// Everything that attention's forward and backward share. With answers_only there are queries for
// the last tokens of every sequence alone, in rows of their own; without, queries, keys and values
// share rows.
struct Problem {
  PackedLayout layout;
  AttentionShape shape;
  RotaryTable rotary;
  bool answers_only = false;

  int64_t sequences() const { return static_cast<int64_t>(layout.offsets.size()) - 1; }

  Sequence At(int64_t b) const {
    const int64_t begin = layout.offsets[b];
    const int64_t end = layout.offsets[b + 1];
    if (!answers_only) return {begin, end, begin, end};
    return {layout.answer_offsets[b], layout.answer_offsets[b + 1], begin, end};
  }

  // Where keys begin in rows of keys, in heads.
  int64_t FirstKeyHead() const { return answers_only ? 0 : shape.heads; }

  void Rotate(const at::Tensor& q, const at::Tensor& kv, bool inverse) const {
    if (!answers_only) {
      RotateInPlace(kv, layout.positions, rotary, shape.heads + shape.kv_heads, inverse);
      return;
    }
    RotateInPlace(kv, layout.positions, rotary, shape.kv_heads, inverse);
    RotateInPlace(q, AnswerPositions(), rotary, shape.heads, inverse);
  }

  at::Tensor AnswerPositions() const {
    at::Tensor positions = at::empty({layout.answer_offsets.back()}, at::kLong);
    auto* position = positions.mutable_data_ptr<int64_t>();
    for (int64_t b = 0; b < sequences(); ++b) {
      const Sequence s = At(b);
      const int64_t answers = s.query_end - s.query_begin;
      std::iota(position, position + answers, s.key_end - s.key_begin - answers);
      position += answers;
    }
    return positions;
  }
};

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

// Rotates q and kv in place, writes [rows of q, N D] and the log-sum-exp of the scores, [rows of q,
// N] fp32.
void Forward(const Problem& problem, const at::Tensor& q, const at::Tensor& kv,
             const at::Tensor& out, const at::Tensor& log_sum_exp) {
  problem.Rotate(q, kv, /*inverse=*/false);
  const AttentionShape& shape = problem.shape;
  const int64_t d = shape.head_dim;
  const int64_t group = shape.heads / shape.kv_heads;
  int64_t most_keys = 0;
  for (int64_t b = 0; b < problem.sequences(); ++b) {
    const Sequence s = problem.At(b);
    most_keys = std::max(most_keys, s.key_end - s.key_begin);
  }
  const int64_t key_heads = problem.sequences() * shape.kv_heads;
  const int64_t parts = HeadTasks(key_heads, group);
  DispatchComputeType(q.scalar_type(), [&]<typename T>() {
    ParallelOverAttention<T>(
        key_heads * parts, most_keys, d, [&](AttentionForward<T>& attention, int64_t task) {
          const int64_t part = task % parts;
          const int64_t kv_head = task / parts % shape.kv_heads;
          const Sequence s = problem.At(task / parts / shape.kv_heads);
          const int64_t q_column = kv_head * group * d;
          const int64_t k_column = (problem.FirstKeyHead() + kv_head) * d;
          const int64_t v_column = k_column + shape.kv_heads * d;
          attention.Compute({.queries = s.query_end - s.query_begin,
                             .keys = s.key_end - s.key_begin,
                             .q = HeadRows<const T>(q, s.query_begin, q_column),
                             .k = HeadRows<const T>(kv, s.key_begin, k_column),
                             .v = HeadRows<const T>(kv, s.key_begin, v_column),
                             .out = HeadRows<T>(out, s.query_begin, q_column),
                             .log_sum_exp = log_sum_exp.mutable_data_ptr<float>() +
                                            s.query_begin * shape.heads + kv_head * group,
                             .log_sum_exp_stride = shape.heads},
                            part * group / parts, (part + 1) * group / parts);
        });
  });
}

struct ForwardOutput {
  at::Tensor out, log_sum_exp;
};

ForwardOutput MakeForward(const Problem& problem, const at::Tensor& q, const at::Tensor& kv) {
  ForwardOutput made{
      at::empty({q.size(0), problem.shape.heads * problem.shape.head_dim}, q.options()),
      at::empty({q.size(0), problem.shape.heads}, at::kFloat)};
  Forward(problem, q, kv, made.out, made.log_sum_exp);
  return made;
}

// What the gradients need besides where they go.
struct Attended {
  const at::Tensor& q;
  const at::Tensor& kv;
  const at::Tensor& out;
  const at::Tensor& grad_out;
  const at::Tensor& log_sum_exp;
};

template <typename T>
AttentionHeads<T> HeadsOf(const Problem& problem, const Attended& x, int64_t b, int64_t kv_head,
                          const at::Tensor& grad_q, const at::Tensor& grad_kv) {
  const AttentionShape& shape = problem.shape;
  const Sequence s = problem.At(b);
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

// Writes the gradients of q and kv into tensors of their shapes (the same one where they share
// rows).
void Backward(const Problem& problem, const Attended& x, const at::Tensor& grad_q,
              const at::Tensor& grad_kv) {
  const AttentionShape& shape = problem.shape;
  DispatchComputeType(x.q.scalar_type(), [&]<typename T>() {
    const int64_t tasks = problem.sequences() * shape.kv_heads;
    const int64_t group = shape.heads / shape.kv_heads;
    AttentionGradientSizes sizes;
    for (int64_t b = 0; b < problem.sequences(); ++b) {
      const Sequence s = problem.At(b);
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
        gradient.Compute(
            HeadsOf<T>(problem, x, task / shape.kv_heads, task % shape.kv_heads, grad_q, grad_kv));
      }
    });
  });
  problem.Rotate(grad_q, grad_kv, /*inverse=*/true);
}

// Autograd's context keeps plain values only, so the problem rides along as a capsule.
struct ProblemHolder : torch::CustomClassHolder {
  explicit ProblemHolder(Problem held) : problem(std::move(held)) {}
  const Problem problem;
};

void SaveProblem(AutogradContext* context, const Problem& problem) {
  context->saved_data["problem"] =
      c10::IValue::make_capsule(c10::make_intrusive<ProblemHolder>(problem));
}

const Problem& SavedProblem(AutogradContext* context) {
  return static_cast<const ProblemHolder&>(*context->saved_data["problem"].toCapsule()).problem;
}

struct PackedFunction : torch::autograd::Function<PackedFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& qkv,
                            const Problem& problem) {
    ForwardOutput made = MakeForward(problem, qkv, qkv);
    context->save_for_backward({made.out, qkv, made.log_sum_exp});
    SaveProblem(context, problem);
    return made.out;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const variable_list saved = context->get_saved_variables();
    at::Tensor grad = at::empty_like(saved[1]);
    const at::Tensor grad_out = grads[0].contiguous();
    Backward(SavedProblem(context), {saved[1], saved[1], saved[0], grad_out, saved[2]}, grad, grad);
    return {grad, at::Tensor()};
  }
};

struct AnswerFunction : torch::autograd::Function<AnswerFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& q, const at::Tensor& kv,
                            const Problem& problem) {
    ForwardOutput made = MakeForward(problem, q, kv);
    context->save_for_backward({made.out, q, kv, made.log_sum_exp});
    SaveProblem(context, problem);
    return made.out;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const variable_list saved = context->get_saved_variables();
    at::Tensor grad_q = at::empty_like(saved[1]);
    at::Tensor grad_kv = at::empty_like(saved[2]);
    const at::Tensor grad_out = grads[0].contiguous();
    Backward(SavedProblem(context), {saved[1], saved[2], saved[0], grad_out, saved[3]}, grad_q,
             grad_kv);
    return {grad_q, grad_kv, at::Tensor()};
  }
};

// Over the prompts: [M, N, D], and the log-sum-exp of the scores, [M, N] fp32.
std::pair<at::Tensor, at::Tensor> PromptAttention(const at::Tensor& q, const at::Tensor& prompt_kv,
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

}  // namespace

at::Tensor NodeAttention(const at::Tensor& q, const at::Tensor& prompt_kv,
                         const at::Tensor& path_kv, const std::vector<int64_t>& prompt_offsets,
                         const std::vector<int64_t>& node_offsets, const AttentionShape& shape) {
  const int64_t nodes = q.size(0);
  const int64_t depth = path_kv.size(1);
  const int64_t d = shape.head_dim;
  const auto [prompt, prompt_lse] =
      PromptAttention(q, prompt_kv, prompt_offsets, node_offsets, shape);
  // The few keys of the path by the formula, in fp32; heads that share a key side by side: G of K.
  const int64_t group = shape.heads / shape.kv_heads;
  const at::Tensor kv =
      path_kv.to(at::kFloat).view({nodes, depth, 2, shape.kv_heads, d}).permute({2, 0, 3, 1, 4});
  const at::Tensor queries =
      q.narrow(1, 0, shape.heads * d).to(at::kFloat).reshape({nodes, shape.kv_heads, group, d});
  const at::Tensor scores =  // [M, K, G, depth]
      at::matmul(queries, kv[0].transpose(2, 3)) / std::sqrt(static_cast<double>(d));
  const at::Tensor path = at::matmul(at::softmax(scores, -1), kv[1]);
  const at::Tensor path_lse = at::logsumexp(scores, {-1}).view({nodes, shape.heads});
  // Two softmaxes over parts of the keys make that over all by their shares of the sum.
  const at::Tensor prompt_share = at::sigmoid(prompt_lse - path_lse).unsqueeze(-1);
  const at::Tensor both =
      at::lerp(path.view({nodes, shape.heads, d}), prompt.to(at::kFloat), prompt_share);
  return both.to(q.scalar_type()).flatten(1);
}

at::Tensor PackedAttention(const at::Tensor& qkv, const PackedLayout& layout,
                           const AttentionShape& shape, const RotaryTable& rotary) {
  return PackedFunction::apply(qkv, Problem{layout, shape, rotary, /*answers_only=*/false});
}

at::Tensor AnswerAttention(const at::Tensor& q, const at::Tensor& kv, const PackedLayout& layout,
                           const AttentionShape& shape, const RotaryTable& rotary) {
  return AnswerFunction::apply(q, kv, Problem{layout, shape, rotary, /*answers_only=*/true});
}

}  // namespace pricer
