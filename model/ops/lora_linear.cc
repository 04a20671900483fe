#include "model/ops/lora_linear.h"

#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <utility>

#include "model/cuda/device.h"
#include "model/ops/lora_blocks.h"

namespace pricer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// fp32 products of MKL are equal row by row from 31 rows on (measured on AVX2 and AVX512
// processors).
constexpr int64_t kStableRows = 32;

struct HeldPlan : torch::CustomClassHolder {
  HeldPlan(LoraPlan plan, InputSource source) : plan(std::move(plan)), source(std::move(source)) {}
  const LoraPlan plan;
  InputSource source;
};

at::Tensor MakeMask(const LoraPart& part, const LoraSegment& segment, const DropoutRows& rows,
                    int64_t channels) {
  if (part.dropout.probability == 0) return {};
  const int64_t count = segment.end - segment.begin;
  return DropoutMask(
      part.dropout,
      {rows.row.narrow(0, segment.begin, count), rows.position.narrow(0, segment.begin, count)},
      channels);
}

PlannedSegment PlanSegment(const LoraSegment& segment, const std::vector<int64_t>& out_begin,
                           const DropoutRows& rows, int64_t channels) {
  PlannedSegment planned{.begin = segment.begin, .end = segment.end, .parts = {}, .ranks = 0};
  for (const LoraPart& part : segment.parts) {
    const int64_t rank = part.a.size(0);
    planned.parts.push_back({.linear = part.linear,
                             .out_begin = out_begin[part.linear],
                             .out_size = part.b.size(0),
                             .rank = rank,
                             .rank_begin = planned.ranks,
                             .padded_rank = RoundUp(kProductTile, rank),
                             .scale = part.scale * DropoutScale(part.dropout),
                             .a = part.a.detach(),
                             .b = part.b.detach(),
                             .mask = MakeMask(part, segment, rows, channels)});
    planned.ranks += planned.parts.back().padded_rank;
  }
  return planned;
}

LoraPlan MakePlan(const FrozenLinears& linears, const std::vector<LoraSegment>& segments,
                  const DropoutRows& rows) {
  LoraPlan plan(linears);
  std::vector<int64_t> out_begin = {0};
  for (const auto& linear : linears) out_begin.push_back(out_begin.back() + linear->out());
  for (const LoraSegment& segment : segments) {
    if (segment.parts.empty() || segment.begin == segment.end) continue;
    plan.segments.push_back(PlanSegment(segment, out_begin, rows, plan.in));
  }
  return plan;
}

// What the gradients keep to have x: x itself, what it is made of, or nothing where there is no
// LoRA.
at::Tensor KeptFor(HeldPlan& held, const at::Tensor& x) {
  if (!cuda::Handles(x)) {
    held.source.make = nullptr;
    return x;
  }
  if (held.plan.segments.empty()) return {};
  return held.source.make ? held.source.from : x;
}

struct LoraLinearFunction : torch::autograd::Function<LoraLinearFunction> {
  // Autograd is to follow the A and B of all planned parts by turns, too.
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, at::TensorList /*lora*/,
                            const c10::intrusive_ptr<HeldPlan>& held) {
    variable_list states;
    at::Tensor y = LoraForward(held->plan, x, &states);
    variable_list saved = {KeptFor(*held, x)};
    held->source.from = at::Tensor();
    saved.insert(saved.end(), states.begin(), states.end());
    context->save_for_backward(saved);
    context->saved_data["plan"] = c10::IValue::make_capsule(held);
    return y;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const variable_list saved = context->get_saved_variables();
    const auto capsule = context->saved_data["plan"].toCapsule();
    const auto& held = static_cast<const HeldPlan&>(*capsule);
    const LoraPlan& plan = held.plan;
    const at::Tensor grad = grads[0].contiguous();
    LoraGradients found;
    if (!saved[0].defined()) {
      found.x = LinearInputGradient(grad, plan.linears);
    } else {
      const at::Tensor x = held.source.make ? held.source.make(saved[0]) : saved[0];
      found = LoraBackward(plan, x, {saved.begin() + 1, saved.end()}, grad,
                           context->needs_input_grad(0));
    }
    variable_list out = {std::move(found.x)};
    for (size_t p = 0; p < found.a.size(); ++p) {
      out.push_back(std::move(found.a[p]));
      out.push_back(std::move(found.b[p]));
    }
    out.emplace_back();  // the plan
    return out;
  }
};

}  // namespace

at::Tensor LoraForward(const LoraPlan& plan, const at::Tensor& x, std::vector<at::Tensor>* states) {
  const auto forward = cuda::Handles(x) ? cuda::LoraForward : cpu::LoraForward;
  return forward(plan, x, states);
}

LoraGradients LoraBackward(const LoraPlan& plan, const at::Tensor& x,
                           const std::vector<at::Tensor>& states, const at::Tensor& grad,
                           bool wants_x) {
  const auto backward = cuda::Handles(x) ? cuda::LoraBackward : cpu::LoraBackward;
  return backward(plan, x, states, grad, wants_x);
}

at::Tensor LinearForward(const at::Tensor& x, const FrozenLinears& linears) {
  return LoraForward(LoraPlan(linears), x, /*states=*/nullptr);
}

at::Tensor LinearInputGradient(const at::Tensor& grad, const FrozenLinears& linears) {
  const auto gradient = cuda::Handles(grad) ? cuda::LinearInputGradient : cpu::LinearInputGradient;
  return gradient(grad, linears);
}

at::Tensor LoraLinear(const at::Tensor& x, const FrozenLinears& linears,
                      const std::vector<LoraSegment>& segments, const DropoutRows& rows,
                      const InputSource& source) {
  TORCH_CHECK(!linears.empty() && x.size(1) == linears[0]->in(),
              "linears of other inputs than [T, ", x.size(1), "]");
  const auto held = c10::make_intrusive<HeldPlan>(MakePlan(linears, segments, rows), source);
  if (!at::GradMode::is_enabled()) return LoraForward(held->plan, x.contiguous(), nullptr);
  variable_list lora;
  for (const LoraSegment& segment : segments) {
    if (segment.begin == segment.end) continue;
    for (const LoraPart& part : segment.parts) {
      lora.push_back(part.a);
      lora.push_back(part.b);
    }
  }
  return LoraLinearFunction::apply(x.contiguous(), at::TensorList(lora), held);
}

at::Tensor RowStableLinear(const at::Tensor& x, const at::Tensor& weight) {
  if (x.size(0) >= kStableRows) return at::linear(x, weight);
  const at::Tensor padded = at::constant_pad_nd(x, {0, 0, 0, kStableRows - x.size(0)});
  // A copy, since autograd wants outputs that are no views.
  return at::linear(padded, weight).narrow(0, 0, x.size(0)).clone();
}

}  // namespace pricer
