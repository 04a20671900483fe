#include "model/ops/attention.h"

#include <torch/csrc/autograd/custom_function.h>

#include <cmath>
#include <utility>

#include "model/cuda/device.h"
#include "model/ops/attention_impl.h"

namespace pricer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

auto ForwardOf(const at::Tensor& q) {
  return cuda::Handles(q) ? cuda::ForwardAttention : cpu::ForwardAttention;
}

auto BackwardOf(const at::Tensor& q) {
  return cuda::Handles(q) ? cuda::BackwardAttention : cpu::BackwardAttention;
}

// Autograd's context keeps plain values only, so the problem rides along as a capsule.
struct ProblemHolder : torch::CustomClassHolder {
  explicit ProblemHolder(AttentionProblem held) : problem(std::move(held)) {}
  const AttentionProblem problem;
};

void SaveProblem(AutogradContext* context, const AttentionProblem& problem) {
  context->saved_data["problem"] =
      c10::IValue::make_capsule(c10::make_intrusive<ProblemHolder>(problem));
}

const AttentionProblem& SavedProblem(AutogradContext* context) {
  return static_cast<const ProblemHolder&>(*context->saved_data["problem"].toCapsule()).problem;
}

struct PackedFunction : torch::autograd::Function<PackedFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& qkv,
                            const AttentionProblem& problem) {
    problem.Rotate(qkv, qkv, /*inverse=*/false);
    AttentionOutput made = ForwardOf(qkv)(problem, qkv, qkv);
    context->save_for_backward({made.out, qkv, made.log_sum_exp});
    SaveProblem(context, problem);
    return made.out;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const variable_list saved = context->get_saved_variables();
    const AttentionProblem& problem = SavedProblem(context);
    at::Tensor grad = at::empty_like(saved[1]);
    const at::Tensor grad_out = grads[0].contiguous();
    BackwardOf(grad)(problem, {saved[1], saved[1], saved[0], grad_out, saved[2]}, {grad, grad});
    problem.Rotate(grad, grad, /*inverse=*/true);
    return {grad, at::Tensor()};
  }
};

struct AnswerFunction : torch::autograd::Function<AnswerFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& q, const at::Tensor& kv,
                            const AttentionProblem& problem) {
    problem.Rotate(q, kv, /*inverse=*/false);
    AttentionOutput made = ForwardOf(q)(problem, q, kv);
    context->save_for_backward({made.out, q, kv, made.log_sum_exp});
    SaveProblem(context, problem);
    return made.out;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const variable_list saved = context->get_saved_variables();
    const AttentionProblem& problem = SavedProblem(context);
    at::Tensor grad_q = at::empty_like(saved[1]);
    at::Tensor grad_kv = at::empty_like(saved[2]);
    const at::Tensor grad_out = grads[0].contiguous();
    BackwardOf(grad_q)(problem, {saved[1], saved[2], saved[0], grad_out, saved[3]},
                       {grad_q, grad_kv});
    problem.Rotate(grad_q, grad_kv, /*inverse=*/true);
    return {grad_q, grad_kv, at::Tensor()};
  }
};

}  // namespace

void AttentionProblem::Rotate(const at::Tensor& q, const at::Tensor& kv, bool inverse) const {
  if (!answers_only) {
    RotateInPlace(kv, layout.positions, rotary, shape.heads + shape.kv_heads, inverse);
    return;
  }
  RotateInPlace(kv, layout.positions, rotary, shape.kv_heads, inverse);
  RotateInPlace(q, layout.answer_positions, rotary, shape.heads, inverse);
}

at::Tensor NodeAttention(const at::Tensor& q, const at::Tensor& prompt_kv,
                         const at::Tensor& path_kv, const std::vector<int64_t>& prompt_offsets,
                         const std::vector<int64_t>& node_offsets, const AttentionShape& shape) {
  const int64_t nodes = q.size(0);
  const int64_t depth = path_kv.size(1);
  const int64_t d = shape.head_dim;
  const auto prompts = cuda::Handles(q) ? cuda::PromptAttention : cpu::PromptAttention;
  const auto [prompt, prompt_lse] = prompts(q, prompt_kv, prompt_offsets, node_offsets, shape);
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
  return PackedFunction::apply(qkv,
                               AttentionProblem{layout, shape, rotary, /*answers_only=*/false});
}

at::Tensor AnswerAttention(const at::Tensor& q, const at::Tensor& kv, const PackedLayout& layout,
                           const AttentionShape& shape, const RotaryTable& rotary) {
  return AnswerFunction::apply(q, kv,
                               AttentionProblem{layout, shape, rotary, /*answers_only=*/true});
}

}  // namespace pricer
