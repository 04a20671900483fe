#include "model/ops/swiglu.h"

#include <torch/csrc/autograd/custom_function.h>

#include "model/ops/rows.h"

namespace pricer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

template <typename T>
void ForwardRows(const at::Tensor& gate_up, at::Tensor& out) {
  const int64_t n = out.size(1);
  const auto* in_data = AsRow(gate_up.const_data_ptr<T>());
  auto* out_data = AsRow(out.mutable_data_ptr<T>());
  ParallelOverRows(out.size(0), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const auto* in = in_data + t * 2 * n;
      row::Swiglu(in, in + n, out_data + t * n, n);
    }
  });
}

template <typename T>
void BackwardRows(const at::Tensor& grad, const at::Tensor& gate_up, at::Tensor& grad_gate_up) {
  const int64_t n = grad.size(1);
  const auto* grad_data = AsRow(grad.const_data_ptr<T>());
  const auto* in_data = AsRow(gate_up.const_data_ptr<T>());
  auto* out_data = AsRow(grad_gate_up.mutable_data_ptr<T>());
  ParallelOverRows(grad.size(0), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const auto* in = in_data + t * 2 * n;
      auto* out = out_data + t * 2 * n;
      row::SwigluGradient(grad_data + t * n, in, in + n, out, out + n, n);
    }
  });
}

struct SwigluFunction : torch::autograd::Function<SwigluFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& gate_up) {
    at::Tensor out = at::empty({gate_up.size(0), gate_up.size(1) / 2}, gate_up.options());
    DispatchComputeType(gate_up.scalar_type(), [&]<typename T>() { ForwardRows<T>(gate_up, out); });
    context->save_for_backward({gate_up});
    return out;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const at::Tensor gate_up = context->get_saved_variables()[0];
    const at::Tensor grad = grads[0].contiguous();
    at::Tensor grad_gate_up = at::empty_like(gate_up);
    DispatchComputeType(gate_up.scalar_type(),
                        [&]<typename T>() { BackwardRows<T>(grad, gate_up, grad_gate_up); });
    return {grad_gate_up};
  }
};

}  // namespace

at::Tensor Swiglu(const at::Tensor& gate_up) { return SwigluFunction::apply(gate_up); }

}  // namespace pricer
