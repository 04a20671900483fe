#pragma once

#include <cstdint>

// The arithmetic of the elementwise and normalizing ops on one row; the CPU's definition of these
// ops. Values are fp32 or bf16, computed in fp32 and rounded to nearest where they are stored. Each
// function is compiled for several instruction sets and chosen at start. The order of additions is
// fixed by n alone, so that a row's result does not depend on where it lies in a batch. Rows do not
// overlap unless said. No torch.

namespace pricer::row {

// The bits of a bfloat16.
enum class Bf16 : uint16_t {};

// sum of x[i]^2.
float SumOfSquares(const float* x, int64_t n);
float SumOfSquares(const Bf16* x, int64_t n);

// sum of a[i] * b[i].
float Dot(const float* a, const float* b, int64_t n);
float Dot(const Bf16* a, const Bf16* b, int64_t n);

// out[i] = weight[i] * (x[i] * inverse_rms)
void ScaleByRms(const float* x, const float* weight, float inverse_rms, float* out, int64_t n);
void ScaleByRms(const Bf16* x, const float* weight, float inverse_rms, Bf16* out, int64_t n);

// Gradient of ScaleByRms composed with inverse_rms(x), with respect to x, and the gradient that
// comes along x itself, which may be null:
// out[i] = along[i] + inverse_rms * (weight[i] * grad[i]
//                                    - x[i] * inverse_rms^2 * mean(weight * grad * x))
void RmsNormGradient(const float* grad, const float* along, const float* x, const float* weight,
                     float inverse_rms, float* out, int64_t n);
void RmsNormGradient(const Bf16* grad, const Bf16* along, const Bf16* x, const float* weight,
                     float inverse_rms, Bf16* out, int64_t n);

// out[i] = a[i] + b[i]
void Add(const float* a, const float* b, float* out, int64_t n);
void Add(const Bf16* a, const Bf16* b, Bf16* out, int64_t n);

// out[i] = factor * x[i]
void Scale(const float* x, float factor, float* out, int64_t n);
void Scale(const float* x, float factor, Bf16* out, int64_t n);

// sum[i] += x[i]
void Accumulate(const float* x, float* sum, int64_t n);
void Accumulate(const Bf16* x, float* sum, int64_t n);

// out[i] = x[i]
void Widen(const Bf16* x, float* out, int64_t n);

// out[2 i] = even[i], out[2 i + 1] = odd[i]; and back, of n pairs.
void Interleave(const Bf16* even, const Bf16* odd, Bf16* out, int64_t n);
void WidenPairs(const Bf16* pairs, float* even, float* odd, int64_t n);

// out[i] = silu(gate[i]) * up[i], silu(x) = x / (1 + exp(-x)); exp within 2 ulp of fp32.
void Swiglu(const float* gate, const float* up, float* out, int64_t n);
void Swiglu(const Bf16* gate, const Bf16* up, Bf16* out, int64_t n);

// Gradients of Swiglu.
void SwigluGradient(const float* grad, const float* gate, const float* up, float* grad_gate,
                    float* grad_up, int64_t n);
void SwigluGradient(const Bf16* grad, const Bf16* gate, const Bf16* up, Bf16* grad_gate,
                    Bf16* grad_up, int64_t n);

// max of x[i]; n >= 1.
float Max(const float* x, int64_t n);

// out[i] = exp(scale * x[i] - shift); returns their sum, of what was not rounded yet.
float ExpAndSum(const float* x, float scale, float shift, float* out, int64_t n);
float ExpAndSum(const float* x, float scale, float shift, Bf16* out, int64_t n);

// probabilities[i] = exp(scale * scores[i] - log_sum_exp[i]) and
// grad_scores[i] = scale * probabilities[i] * (grad_probabilities[i] - grad_dot_out[i]), which may
// take the places of scores and grad_probabilities.
void AttentionGradient(const float* scores, const float* grad_probabilities,
                       const float* log_sum_exp, const float* grad_dot_out, float scale,
                       float* probabilities, float* grad_scores, int64_t n);
void AttentionGradient(const float* scores, const float* grad_probabilities,
                       const float* log_sum_exp, const float* grad_dot_out, float scale,
                       Bf16* probabilities, Bf16* grad_scores, int64_t n);

// Rotates one head of 2 * half values in place: (x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin), x1
// and x2 the halves.
void Rotate(float* head, const float* cos, const float* sin, int64_t half);
void Rotate(Bf16* head, const float* cos, const float* sin, int64_t half);

// The inverse rotation, which is its gradient.
void RotateBack(float* head, const float* cos, const float* sin, int64_t half);
void RotateBack(Bf16* head, const float* cos, const float* sin, int64_t half);

}  // namespace pricer::row
