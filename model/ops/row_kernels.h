#pragma once

#include <cstdint>

// The arithmetic of the elementwise and normalizing ops on one row of fp32 values; the CPU's
// definition of these ops. Each function is compiled for several instruction sets and chosen at
// start. The order of additions is fixed by n alone, so that a row's result does not depend on
// where it lies in a batch. No torch.

namespace pricer::row {

// sum of x[i]^2.
float SumOfSquares(const float* x, int64_t n);

// out[i] = weight[i] * (x[i] * inverse_rms)
void ScaleByRms(const float* x, const float* weight, float inverse_rms, float* out, int64_t n);

// Gradient of ScaleByRms composed with inverse_rms(x), with respect to x:
// out[i] += inverse_rms * (weight[i] * grad[i] - x[i] * inverse_rms^2 * mean(weight * grad * x))
void AddRmsNormGradient(const float* grad, const float* x, const float* weight, float inverse_rms,
                        float* out, int64_t n);

// out[i] = a[i] + b[i]
void Add(const float* a, const float* b, float* out, int64_t n);

// out[i] = silu(gate[i]) * up[i], silu(x) = x / (1 + exp(-x)); exp within 2 ulp.
void Swiglu(const float* gate, const float* up, float* out, int64_t n);

// Gradients of Swiglu.
void SwigluGradient(const float* grad, const float* gate, const float* up, float* grad_gate,
                    float* grad_up, int64_t n);

// Rotates one head of 2 * half values in place: (x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin), x1
// and x2 the halves.
void Rotate(float* head, const float* cos, const float* sin, int64_t half);

// The inverse rotation, which is its gradient.
void RotateBack(float* head, const float* cos, const float* sin, int64_t half);

}  // namespace pricer::row
