#pragma once

#include <ATen/ATen.h>

// Swiglu and its gradient on either device. Tensors are contiguous.

namespace pricer::cpu {
void SwigluForward(const at::Tensor& gate_up, const at::Tensor& out);
void SwigluBackward(const at::Tensor& grad, const at::Tensor& gate_up,
                    const at::Tensor& grad_gate_up);
}  // namespace pricer::cpu

namespace pricer::cuda {
void SwigluForward(const at::Tensor& gate_up, const at::Tensor& out);
void SwigluBackward(const at::Tensor& grad, const at::Tensor& gate_up,
                    const at::Tensor& grad_gate_up);
}  // namespace pricer::cuda
