#include "model/ops/attention.h"

#include <torch/csrc/autograd/custom_function.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>

#include "model/ops/attention_gradient.h"
#include "model/ops/rows.h"

namespace pricer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// ATen's flash kernel takes [1, heads, tokens, D]; a slice of packed rows is that by strides alone.
at::Tensor AsHeads(const at::Tensor& rows, int64_t begin, int64_t end, int64_t first_head,
                   int64_t heads, int64_t head_dim) {
  return rows.narrow(0, begin, end - begin)
      .narrow(1, first_head * head_dim, heads * head_dim)
      .view({1, end - begin, heads, head_dim})
      .transpose(1, 2);
}

// Rows of `q` and rows of `kv`.
struct Sequence {
  int64_t query_begin, query_end, key_begin, key_end;
};

struct Operands {
  at::Tensor q, k, v;  // [1, heads, tokens, D]
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

  // What the kernel adds to the scores of sequence b, [queries, keys]: several answers do not see
  // those that follow. A single one sees all.
  std::optional<at::Tensor> MaskOf(const Sequence& s, at::ScalarType dtype) const {
    const int64_t queries = s.query_end - s.query_begin;
    const int64_t keys = s.key_end - s.key_begin;
    if (!answers_only || queries == 1) return std::nullopt;
    return at::full({queries, keys}, -std::numeric_limits<float>::infinity())
        .triu_(keys - queries + 1)
        .to(dtype);
  }

  Operands OperandsOf(const at::Tensor& q, const at::Tensor& kv, int64_t b) const {
    const Sequence s = At(b);
    const int64_t key_head = FirstKeyHead();
    return {AsHeads(q, s.query_begin, s.query_end, 0, shape.heads, shape.head_dim),
            AsHeads(kv, s.key_begin, s.key_end, key_head, shape.kv_heads, shape.head_dim),
            AsHeads(kv, s.key_begin, s.key_end, key_head + shape.kv_heads, shape.kv_heads,
                    shape.head_dim)};
  }

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

// Rotates q and kv in place, returns [rows of q, N D] and appends each sequence's log-sum-exp,
// [queries, N] fp32, which the backward pass needs.
at::Tensor Forward(const Problem& problem, const at::Tensor& q, const at::Tensor& kv,
                   variable_list& log_sum_exp) {
  problem.Rotate(q, kv, /*inverse=*/false);
  const int64_t width = problem.shape.heads * problem.shape.head_dim;
  // Rows beyond the last sequence pad the batch.
  at::Tensor out = at::zeros({q.size(0), width}, q.options());
  for (int64_t b = 0; b < problem.sequences(); ++b) {
    const Operands x = problem.OperandsOf(q, kv, b);
    const Sequence s = problem.At(b);
    auto [attended, lse] = at::_scaled_dot_product_flash_attention_for_cpu(
        x.q, x.k, x.v, /*dropout_p=*/0.0, /*is_causal=*/!problem.answers_only,
        problem.MaskOf(s, q.scalar_type()));
    AsHeads(out, s.query_begin, s.query_end, 0, problem.shape.heads, problem.shape.head_dim)
        .copy_(attended);
    log_sum_exp.push_back(lse.select(0, 0).t().contiguous());
  }
  return out;
}

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

// What the gradients need besides where they go.
struct Attended {
  const at::Tensor& q;
  const at::Tensor& kv;
  const at::Tensor& out;
  const at::Tensor& grad_out;
  const at::Tensor* log_sum_exp;  // of each sequence
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
  const at::Tensor& log_sum_exp = x.log_sum_exp[b];
  return {.queries = s.query_end - s.query_begin,
          .keys = s.key_end - s.key_begin,
          .q = HeadRows<const T>(x.q, s.query_begin, q_column),
          .out = HeadRows<const T>(x.out, s.query_begin, q_column),
          .grad_out = HeadRows<const T>(x.grad_out, s.query_begin, q_column),
          .k = HeadRows<const T>(x.kv, s.key_begin, k_column),
          .v = HeadRows<const T>(x.kv, s.key_begin, v_column),
          .log_sum_exp = log_sum_exp.const_data_ptr<float>() + kv_head * group,
          .log_sum_exp_stride = log_sum_exp.stride(0),
          .grad_q = HeadRows<T>(grad_q, s.query_begin, q_column),
          .grad_k = HeadRows<T>(grad_kv, s.key_begin, k_column),
          .grad_v = HeadRows<T>(grad_kv, s.key_begin, v_column)};
}

// Writes the gradients of q and kv into tensors of their shapes (the same one where they share
// rows). Rows beyond the last sequence stay as they are.
void Backward(const Problem& problem, const Attended& x, const at::Tensor& grad_q,
              const at::Tensor& grad_kv) {
  const AttentionShape& shape = problem.shape;
  DispatchComputeType(x.q.scalar_type(), [&]<typename T>() {
    // Neighbours in this order are of different sequences, so that threads get equal work.
    at::parallel_for(0, problem.sequences() * shape.kv_heads, 1, [&](int64_t begin, int64_t end) {
      const at::NoGradGuard no_grad;
      const auto gradient = MakeAttentionGradient<T>(shape.heads / shape.kv_heads, shape.head_dim);
      for (int64_t task = begin; task < end; ++task) {
        gradient->Compute(HeadsOf<T>(problem, x, task % problem.sequences(),
                                     task / problem.sequences(), grad_q, grad_kv));
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

// What the forward pass saves: out, the rows, then one log-sum-exp per sequence.
struct PackedFunction : torch::autograd::Function<PackedFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& qkv,
                            const Problem& problem) {
    variable_list log_sum_exp;
    at::Tensor out = Forward(problem, qkv, qkv, log_sum_exp);
    variable_list saved = {out, qkv};
    saved.insert(saved.end(), log_sum_exp.begin(), log_sum_exp.end());
    context->save_for_backward(saved);
    SaveProblem(context, problem);
    return out;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const variable_list saved = context->get_saved_variables();
    at::Tensor grad = at::zeros_like(saved[1]);
    const at::Tensor grad_out = grads[0].contiguous();
    Backward(SavedProblem(context), {saved[1], saved[1], saved[0], grad_out, &saved[2]}, grad,
             grad);
    return {grad, at::Tensor()};
  }
};

struct AnswerFunction : torch::autograd::Function<AnswerFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& q, const at::Tensor& kv,
                            const Problem& problem) {
    variable_list log_sum_exp;
    at::Tensor out = Forward(problem, q, kv, log_sum_exp);
    variable_list saved = {out, q, kv};
    saved.insert(saved.end(), log_sum_exp.begin(), log_sum_exp.end());
    context->save_for_backward(saved);
    SaveProblem(context, problem);
    return out;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const variable_list saved = context->get_saved_variables();
    at::Tensor grad_q = at::zeros_like(saved[1]);
    at::Tensor grad_kv = at::zeros_like(saved[2]);
    const at::Tensor grad_out = grads[0].contiguous();
    Backward(SavedProblem(context), {saved[1], saved[2], saved[0], grad_out, &saved[3]}, grad_q,
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
  at::Tensor out = at::empty({q.size(0), shape.heads, d}, q.options());
  at::Tensor log_sum_exp = at::empty({q.size(0), shape.heads}, at::kFloat);
  for (size_t b = 0; b + 1 < prompt_offsets.size(); ++b) {
    const int64_t first = node_offsets[b];
    const int64_t nodes = node_offsets[b + 1] - first;
    if (nodes == 0) continue;
    const int64_t begin = prompt_offsets[b];
    const int64_t end = prompt_offsets[b + 1];
    auto [attended, lse] = at::_scaled_dot_product_flash_attention_for_cpu(
        AsHeads(q, first, first + nodes, 0, shape.heads, d),
        AsHeads(prompt_kv, begin, end, 0, shape.kv_heads, d),
        AsHeads(prompt_kv, begin, end, shape.kv_heads, shape.kv_heads, d));
    out.narrow(0, first, nodes).copy_(attended.squeeze(0).transpose(0, 1));
    log_sum_exp.narrow(0, first, nodes).copy_(lse.squeeze(0).t());
  }
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
