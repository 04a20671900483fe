#include "model/ops/rms_norm.h"

#include <torch/csrc/autograd/custom_function.h>

#include <cmath>

#include "model/ops/rows.h"

namespace pricer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Forward {
  at::Tensor sum;
  at::Tensor normed;
  at::Tensor inverse_rms;  // [T] fp32
};

template <typename T>
void ForwardRows(const at::Tensor& residual, const at::Tensor& delta, const at::Tensor& weight_f32,
                 float epsilon, Forward& out) {
  const int64_t n = residual.size(1);
  const auto* residual_data = AsRow(residual.const_data_ptr<T>());
  const auto* delta_data = delta.defined() ? AsRow(delta.const_data_ptr<T>()) : nullptr;
  const float* weight = weight_f32.const_data_ptr<float>();
  auto* sum_data = AsRow(out.sum.mutable_data_ptr<T>());
  auto* normed_data = AsRow(out.normed.mutable_data_ptr<T>());
  float* inverse_rms = out.inverse_rms.mutable_data_ptr<float>();
  ParallelOverRows(residual.size(0), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      auto* sum = sum_data + t * n;
      if (delta_data != nullptr) row::Add(residual_data + t * n, delta_data + t * n, sum, n);
      const float mean_square = row::SumOfSquares(sum, n) / static_cast<float>(n);
      inverse_rms[t] = 1.0f / std::sqrt(mean_square + epsilon);
      row::ScaleByRms(sum, weight, inverse_rms[t], normed_data + t * n, n);
    }
  });
}

Forward RunForward(const at::Tensor& residual, const at::Tensor& delta, const at::Tensor& weight,
                   double epsilon) {
  Forward out{.sum = delta.defined() ? at::empty_like(residual) : residual,
              .normed = at::empty_like(residual),
              .inverse_rms = at::empty({residual.size(0)}, residual.options().dtype(at::kFloat))};
  const at::Tensor weight_f32 = weight.to(at::kFloat);
  DispatchComputeType(residual.scalar_type(), [&]<typename T>() {
    ForwardRows<T>(residual, delta, weight_f32, static_cast<float>(epsilon), out);
  });
  return out;
}

// grad_sum (what flows in from the residual stream) plus the gradient through the normalization.
template <typename T>
void BackwardRows(const at::Tensor& grad_normed, const at::Tensor& grad_sum, const at::Tensor& sum,
                  const at::Tensor& weight_f32, const at::Tensor& inverse_rms, at::Tensor& out) {
  const int64_t n = sum.size(1);
  const auto* grad_normed_data = AsRow(grad_normed.const_data_ptr<T>());
  const auto* grad_sum_data = grad_sum.defined() ? AsRow(grad_sum.const_data_ptr<T>()) : nullptr;
  const auto* sum_data = AsRow(sum.const_data_ptr<T>());
  const float* weight = weight_f32.const_data_ptr<float>();
  const float* inverse_rms_data = inverse_rms.const_data_ptr<float>();
  auto* out_data = AsRow(out.mutable_data_ptr<T>());
  ParallelOverRows(sum.size(0), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      row::RmsNormGradient(grad_normed_data + t * n,
                           grad_sum_data == nullptr ? nullptr : grad_sum_data + t * n,
                           sum_data + t * n, weight, inverse_rms_data[t], out_data + t * n, n);
    }
  });
}

// `saved` are sum, weight and inverse RMS; `grads` those of sum and normed.
at::Tensor Gradient(const variable_list& saved, const variable_list& grads) {
  if (!grads[1].defined()) return grads[0];
  const at::Tensor& sum = saved[0];
  at::Tensor grad = at::empty_like(sum);
  const at::Tensor weight_f32 = saved[1].to(at::kFloat);
  const at::Tensor grad_normed = grads[1].contiguous();
  const at::Tensor grad_sum = grads[0].defined() ? grads[0].contiguous() : at::Tensor();
  DispatchComputeType(sum.scalar_type(), [&]<typename T>() {
    BackwardRows<T>(grad_normed, grad_sum, sum, weight_f32, saved[2], grad);
  });
  return grad;
}

struct AddRmsNormFunction : torch::autograd::Function<AddRmsNormFunction> {
  static variable_list forward(AutogradContext* context, const at::Tensor& residual,
                               const at::Tensor& delta, const at::Tensor& weight, double epsilon) {
    const Forward out = RunForward(residual, delta, weight, epsilon);
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
    const Forward out = RunForward(stream, at::Tensor(), weight, epsilon);
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
