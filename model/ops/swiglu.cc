#include "model/ops/swiglu.h"

#include <torch/csrc/autograd/custom_function.h>

#include "model/cuda/device.h"
#include "model/ops/swiglu_impl.h"

namespace pricer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct SwigluFunction : torch::autograd::Function<SwigluFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& gate_up) {
    at::Tensor out = at::empty({gate_up.size(0), gate_up.size(1) / 2}, gate_up.options());
    const auto run = cuda::Handles(gate_up) ? cuda::SwigluForward : cpu::SwigluForward;
    run(gate_up, out);
    context->save_for_backward({gate_up});
    return out;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const at::Tensor gate_up = context->get_saved_variables()[0];
    const at::Tensor grad = grads[0].contiguous();
    at::Tensor grad_gate_up = at::empty_like(gate_up);
    const auto run = cuda::Handles(gate_up) ? cuda::SwigluBackward : cpu::SwigluBackward;
    run(grad, gate_up, grad_gate_up);
    return {grad_gate_up};
  }
};

}  // namespace

at::Tensor Swiglu(const at::Tensor& gate_up) { return SwigluFunction::apply(gate_up); }

}  // namespace pricer
