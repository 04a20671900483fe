#include <cmath>

#include "model/ops/rms_norm_impl.h"
#include "model/ops/rows.h"

namespace pricer::cpu {
namespace {

template <typename T>
void ForwardRows(const at::Tensor& residual, const at::Tensor& delta, const at::Tensor& weight_f32,
                 float epsilon, const AddRmsNormState& out) {
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

template <typename T>
void BackwardRows(const at::Tensor& grad_normed, const at::Tensor& grad_sum, const at::Tensor& sum,
                  const at::Tensor& weight_f32, const at::Tensor& inverse_rms,
                  const at::Tensor& out) {
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

}  // namespace

void AddRmsNormForward(const at::Tensor& residual, const at::Tensor& delta,
                       const at::Tensor& weight, double epsilon, const AddRmsNormState& out) {
  const at::Tensor weight_f32 = weight.to(at::kFloat);
  DispatchComputeType(residual.scalar_type(), [&]<typename T>() {
    ForwardRows<T>(residual, delta, weight_f32, static_cast<float>(epsilon), out);
  });
}

void AddRmsNormBackward(const at::Tensor& grad_normed, const at::Tensor& grad_sum,
                        const at::Tensor& sum, const at::Tensor& weight,
                        const at::Tensor& inverse_rms, const at::Tensor& grad) {
  const at::Tensor weight_f32 = weight.to(at::kFloat);
  DispatchComputeType(sum.scalar_type(), [&]<typename T>() {
    BackwardRows<T>(grad_normed, grad_sum, sum, weight_f32, inverse_rms, grad);
  });
}

}  // namespace pricer::cpu
