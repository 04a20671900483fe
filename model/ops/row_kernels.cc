#include "model/ops/row_kernels.h"

#include <bit>

// One clone per instruction set. Sanitizers cannot run the code that chooses, which is called
// before they are up.
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define PRICER_VECTOR_CLONES \
  __attribute__((target_clones("arch=skylake-avx512", "arch=haswell", "default")))
#else
#define PRICER_VECTOR_CLONES
#endif

namespace pricer::row {
namespace {

constexpr int kLanes = 32;

// Fixed order; a tree so that the rounding error stays small.
inline float SumOfLanes(float (&lanes)[kLanes]) {
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int j = 0; j < width; ++j) lanes[j] += lanes[j + width];
  }
  return lanes[0];
}

// exp(x) without branches, so that loops over it become vector code: x = n ln2 + r, |r| <= ln2 / 2,
// exp(r) by the polynomial of Cephes' expf. Saturates at 2^-126 and at about 1.7e38.
inline float Exp(float x) {
  x = x < -87.3f ? -87.3f : x;
  x = x > 88.0f ? 88.0f : x;
  constexpr float kRound =
      12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
  const float shifted = x * 1.44269504088896341f + kRound;
  const float n = shifted - kRound;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const float exp_r = p * r * r + r + 1.0f;
  const int32_t exponent = std::bit_cast<int32_t>(shifted) - std::bit_cast<int32_t>(kRound) + 127;
  return exp_r * std::bit_cast<float>(exponent << 23);
}

inline float Sigmoid(float x) { return 1.0f / (1.0f + Exp(-x)); }

}  // namespace

PRICER_VECTOR_CLONES float SumOfSquares(const float* x, int64_t n) {
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int j = 0; j < kLanes; ++j) lanes[j] += x[i + j] * x[i + j];
  }
  for (int j = 0; i < n; ++i, ++j) lanes[j] += x[i] * x[i];
  return SumOfLanes(lanes);
}

PRICER_VECTOR_CLONES void ScaleByRms(const float* x, const float* weight, float inverse_rms,
                                     float* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = weight[i] * (x[i] * inverse_rms);
}

PRICER_VECTOR_CLONES void AddRmsNormGradient(const float* grad, const float* x, const float* weight,
                                             float inverse_rms, float* out, int64_t n) {
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int j = 0; j < kLanes; ++j) lanes[j] += grad[i + j] * weight[i + j] * x[i + j];
  }
  for (int j = 0; i < n; ++i, ++j) lanes[j] += grad[i] * weight[i] * x[i];
  const float along_x =
      SumOfLanes(lanes) * inverse_rms * inverse_rms * inverse_rms / static_cast<float>(n);
  for (i = 0; i < n; ++i) out[i] += grad[i] * weight[i] * inverse_rms - x[i] * along_x;
}

PRICER_VECTOR_CLONES void Add(const float* a, const float* b, float* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = a[i] + b[i];
}

PRICER_VECTOR_CLONES void Swiglu(const float* gate, const float* up, float* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = gate[i] * Sigmoid(gate[i]) * up[i];
}

PRICER_VECTOR_CLONES void SwigluGradient(const float* grad, const float* gate, const float* up,
                                         float* grad_gate, float* grad_up, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const float sigmoid = Sigmoid(gate[i]);
    const float silu = gate[i] * sigmoid;
    grad_up[i] = grad[i] * silu;
    grad_gate[i] = grad[i] * up[i] * (sigmoid + silu * (1.0f - sigmoid));
  }
}

PRICER_VECTOR_CLONES void Rotate(float* head, const float* cos, const float* sin, int64_t half) {
  for (int64_t i = 0; i < half; ++i) {
    const float first = head[i];
    const float second = head[i + half];
    head[i] = first * cos[i] - second * sin[i];
    head[i + half] = second * cos[i] + first * sin[i];
  }
}

PRICER_VECTOR_CLONES void RotateBack(float* head, const float* cos, const float* sin,
                                     int64_t half) {
  for (int64_t i = 0; i < half; ++i) {
    const float first = head[i];
    const float second = head[i + half];
    head[i] = first * cos[i] + second * sin[i];
    head[i + half] = second * cos[i] - first * sin[i];
  }
}

}  // namespace pricer::row
