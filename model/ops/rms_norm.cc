#include "model/ops/rms_norm.h"

#include <torch/csrc/autograd/custom_function.h>

#include "model/cuda/device.h"
#include "model/ops/rms_norm_impl.h"

namespace pricer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

AddRmsNormState RunForward(const at::Tensor& residual, const at::Tensor& delta,
                           const at::Tensor& weight, double epsilon) {
  AddRmsNormState out{
      .sum = delta.defined() ? at::empty_like(residual) : residual,
      .normed = at::empty_like(residual),
      .inverse_rms = at::empty({residual.size(0)}, residual.options().dtype(at::kFloat))};
  const auto forward = cuda::Handles(residual) ? cuda::AddRmsNormForward : cpu::AddRmsNormForward;
  forward(residual, delta, weight, epsilon, out);
  return out;
}

// `saved` are sum, weight and inverse RMS; `grads` those of sum and normed.
at::Tensor Gradient(const variable_list& saved, const variable_list& grads) {
  if (!grads[1].defined()) return grads[0];
  const at::Tensor& sum = saved[0];
  at::Tensor grad = at::empty_like(sum);
  const at::Tensor grad_sum = grads[0].defined() ? grads[0].contiguous() : at::Tensor();
  const auto backward = cuda::Handles(sum) ? cuda::AddRmsNormBackward : cpu::AddRmsNormBackward;
  backward(grads[1].contiguous(), grad_sum, sum, saved[1], saved[2], grad);
  return grad;
}

struct AddRmsNormFunction : torch::autograd::Function<AddRmsNormFunction> {
  static variable_list forward(AutogradContext* context, const at::Tensor& residual,
                               const at::Tensor& delta, const at::Tensor& weight, double epsilon) {
    const AddRmsNormState out = RunForward(residual, delta, weight, epsilon);
    context->save_for_backward({out.sum, weight, out.inverse_rms});
    return {out.sum, out.normed};
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const at::Tensor grad = Gradient(context->get_saved_variables(), grads);
    return {grad, grad, at::Tensor(), at::Tensor()};
  }
};

// As above for a normalization that adds nothing.
struct RmsNormFunction : torch::autograd::Function<RmsNormFunction> {
  static variable_list forward(AutogradContext* context, const at::Tensor& stream,
                               const at::Tensor& weight, double epsilon) {
    const AddRmsNormState out = RunForward(stream, at::Tensor(), weight, epsilon);
    context->save_for_backward({stream, weight, out.inverse_rms});
    return {stream, out.normed};
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    return {Gradient(context->get_saved_variables(), grads), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

AddRmsNormOutput AddRmsNorm(const at::Tensor& residual, const at::Tensor& delta,
                            const at::Tensor& weight, double epsilon) {
  const variable_list out = delta.defined()
                                ? AddRmsNormFunction::apply(residual, delta, weight, epsilon)
                                : RmsNormFunction::apply(residual, weight, epsilon);
  return {.sum = out[0], .normed = out[1]};
}

}  // namespace pricer
