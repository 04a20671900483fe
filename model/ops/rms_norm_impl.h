#pragma once

#include <ATen/ATen.h>

#include <cstdint>

// AddRmsNorm and its gradient on either device. Tensors are contiguous.

namespace pricer {

struct AddRmsNormState {
  at::Tensor sum;          // [T, H]
  at::Tensor normed;       // [T, H]
  at::Tensor inverse_rms;  // [T] fp32
};

namespace cpu {
// Fills `out`; sum is not written where `delta` is undefined.
void AddRmsNormForward(const at::Tensor& residual, const at::Tensor& delta,
                       const at::Tensor& weight, double epsilon, const AddRmsNormState& out);
// The gradient with respect to sum: that through the normalization plus `grad_sum`, what flows in
// from the residual stream, which may be undefined.
void AddRmsNormBackward(const at::Tensor& grad_normed, const at::Tensor& grad_sum,
                        const at::Tensor& sum, const at::Tensor& weight,
                        const at::Tensor& inverse_rms, const at::Tensor& grad);
}  // namespace cpu

namespace cuda {
void AddRmsNormForward(const at::Tensor& residual, const at::Tensor& delta,
                       const at::Tensor& weight, double epsilon, const AddRmsNormState& out);
void AddRmsNormBackward(const at::Tensor& grad_normed, const at::Tensor& grad_sum,
                        const at::Tensor& sum, const at::Tensor& weight,
                        const at::Tensor& inverse_rms, const at::Tensor& grad);
}  // namespace cuda

}  // namespace pricer
