#include "model/ops/row_kernels.h"

#include <bit>

// One clone per level of the instruction set, chosen by what the processor supports (`arch=haswell`
// and the like would ask for that very processor). Sanitizers cannot run the code that chooses,
// which is called before they are up.
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define PRICER_VECTOR_CLONES \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define PRICER_VECTOR_CLONES
#endif

namespace pricer::row {
namespace {

constexpr int kLanes = 32;

inline float Widen(float x) { return x; }
inline float Widen(Bf16 x) { return std::bit_cast<float>(static_cast<uint32_t>(x) << 16); }

inline void Store(float value, float* out) { *out = value; }
inline void Store(float value, Bf16* out) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t nearest_even = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
  constexpr uint32_t kNan = 0x7FC0;
  *out = static_cast<Bf16>(value == value ? nearest_even : kNan);
}

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

template <typename T>
inline float DotOf(const T* a, const T* b, int64_t n) {
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int j = 0; j < kLanes; ++j) lanes[j] += Widen(a[i + j]) * Widen(b[i + j]);
  }
  for (int j = 0; i < n; ++i, ++j) lanes[j] += Widen(a[i]) * Widen(b[i]);
  return SumOfLanes(lanes);
}

template <typename T>
inline void ScaleRowByRms(const T* __restrict x, const float* __restrict weight, float inverse_rms,
                          T* __restrict out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) Store(weight[i] * (Widen(x[i]) * inverse_rms), &out[i]);
}

template <typename T>
inline void RmsNormGradientOf(const T* __restrict grad, const T* __restrict along,
                              const T* __restrict x, const float* __restrict weight,
                              float inverse_rms, T* __restrict out, int64_t n) {
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int j = 0; j < kLanes; ++j) {
      lanes[j] += Widen(grad[i + j]) * weight[i + j] * Widen(x[i + j]);
    }
  }
  for (int j = 0; i < n; ++i, ++j) lanes[j] += Widen(grad[i]) * weight[i] * Widen(x[i]);
  const float along_x =
      SumOfLanes(lanes) * inverse_rms * inverse_rms * inverse_rms / static_cast<float>(n);
  const auto of_norm = [&](int64_t at) {
    return Widen(grad[at]) * weight[at] * inverse_rms - Widen(x[at]) * along_x;
  };
  if (along == nullptr) {
    for (i = 0; i < n; ++i) Store(of_norm(i), &out[i]);
  } else {
    for (i = 0; i < n; ++i) Store(Widen(along[i]) + of_norm(i), &out[i]);
  }
}

template <typename T>
inline void AddRows(const T* __restrict a, const T* __restrict b, T* __restrict out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) Store(Widen(a[i]) + Widen(b[i]), &out[i]);
}

template <typename T>
inline void ScaleRow(const float* __restrict x, float factor, T* __restrict out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) Store(factor * x[i], &out[i]);
}

template <typename T>
inline void AccumulateRow(const T* __restrict x, float* __restrict sum, int64_t n) {
  for (int64_t i = 0; i < n; ++i) sum[i] += Widen(x[i]);
}

template <typename T>
inline void SwigluOf(const T* __restrict gate, const T* __restrict up, T* __restrict out,
                     int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const float g = Widen(gate[i]);
    Store(g * Sigmoid(g) * Widen(up[i]), &out[i]);
  }
}

template <typename T>
inline void SwigluGradientOf(const T* __restrict grad, const T* __restrict gate,
                             const T* __restrict up, T* __restrict grad_gate, T* __restrict grad_up,
                             int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const float g = Widen(gate[i]);
    const float sigmoid = Sigmoid(g);
    const float silu = g * sigmoid;
    Store(Widen(grad[i]) * silu, &grad_up[i]);
    Store(Widen(grad[i]) * Widen(up[i]) * (sigmoid + silu * (1.0f - sigmoid)), &grad_gate[i]);
  }
}

inline float MaxOf(const float* x, int64_t n) {
  float lanes[kLanes];
  for (int j = 0; j < kLanes; ++j) lanes[j] = x[0];
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int j = 0; j < kLanes; ++j) lanes[j] = x[i + j] > lanes[j] ? x[i + j] : lanes[j];
  }
  for (int j = 0; i < n; ++i, ++j) lanes[j] = x[i] > lanes[j] ? x[i] : lanes[j];
  for (int j = 1; j < kLanes; ++j) lanes[0] = lanes[j] > lanes[0] ? lanes[j] : lanes[0];
  return lanes[0];
}

template <typename T>
inline float ExpAndSumOf(const float* __restrict x, float scale, float shift, T* __restrict out,
                         int64_t n) {
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int j = 0; j < kLanes; ++j) {
      const float value = Exp(scale * x[i + j] - shift);
      lanes[j] += value;
      Store(value, &out[i + j]);
    }
  }
  for (int j = 0; i < n; ++i, ++j) {
    const float value = Exp(scale * x[i] - shift);
    lanes[j] += value;
    Store(value, &out[i]);
  }
  return SumOfLanes(lanes);
}

template <typename T>
inline void AttentionGradientOf(const float* scores, const float* grad_probabilities,
                                const float* __restrict log_sum_exp,
                                const float* __restrict grad_dot_out, float scale, T* probabilities,
                                T* grad_scores, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const float probability = Exp(scale * scores[i] - log_sum_exp[i]);
    const float grad = scale * probability * (grad_probabilities[i] - grad_dot_out[i]);
    Store(probability, &probabilities[i]);
    Store(grad, &grad_scores[i]);
  }
}

// `sign` turns the direction.
template <typename T>
inline void RotateHead(T* __restrict first_half, T* __restrict second_half,
                       const float* __restrict cos, const float* __restrict sin, float sign,
                       int64_t half) {
  for (int64_t i = 0; i < half; ++i) {
    const float first = Widen(first_half[i]);
    const float second = Widen(second_half[i]);
    const float turned = sign * sin[i];
    Store(first * cos[i] - second * turned, &first_half[i]);
    Store(second * cos[i] + first * turned, &second_half[i]);
  }
}

}  // namespace

PRICER_VECTOR_CLONES float SumOfSquares(const float* x, int64_t n) { return DotOf(x, x, n); }
PRICER_VECTOR_CLONES float SumOfSquares(const Bf16* x, int64_t n) { return DotOf(x, x, n); }

PRICER_VECTOR_CLONES float Dot(const float* a, const float* b, int64_t n) { return DotOf(a, b, n); }
PRICER_VECTOR_CLONES float Dot(const Bf16* a, const Bf16* b, int64_t n) { return DotOf(a, b, n); }

PRICER_VECTOR_CLONES void ScaleByRms(const float* x, const float* weight, float inverse_rms,
                                     float* out, int64_t n) {
  ScaleRowByRms(x, weight, inverse_rms, out, n);
}
PRICER_VECTOR_CLONES void ScaleByRms(const Bf16* x, const float* weight, float inverse_rms,
                                     Bf16* out, int64_t n) {
  ScaleRowByRms(x, weight, inverse_rms, out, n);
}

PRICER_VECTOR_CLONES void RmsNormGradient(const float* grad, const float* along, const float* x,
                                          const float* weight, float inverse_rms, float* out,
                                          int64_t n) {
  RmsNormGradientOf(grad, along, x, weight, inverse_rms, out, n);
}
PRICER_VECTOR_CLONES void RmsNormGradient(const Bf16* grad, const Bf16* along, const Bf16* x,
                                          const float* weight, float inverse_rms, Bf16* out,
                                          int64_t n) {
  RmsNormGradientOf(grad, along, x, weight, inverse_rms, out, n);
}

PRICER_VECTOR_CLONES void Add(const float* a, const float* b, float* out, int64_t n) {
  AddRows(a, b, out, n);
}
PRICER_VECTOR_CLONES void Add(const Bf16* a, const Bf16* b, Bf16* out, int64_t n) {
  AddRows(a, b, out, n);
}

PRICER_VECTOR_CLONES void Scale(const float* x, float factor, float* out, int64_t n) {
  ScaleRow(x, factor, out, n);
}
PRICER_VECTOR_CLONES void Scale(const float* x, float factor, Bf16* out, int64_t n) {
  ScaleRow(x, factor, out, n);
}

PRICER_VECTOR_CLONES void Accumulate(const float* x, float* sum, int64_t n) {
  AccumulateRow(x, sum, n);
}
PRICER_VECTOR_CLONES void Accumulate(const Bf16* x, float* sum, int64_t n) {
  AccumulateRow(x, sum, n);
}

PRICER_VECTOR_CLONES void Widen(const Bf16* __restrict x, float* __restrict out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = Widen(x[i]);
}

PRICER_VECTOR_CLONES void Interleave(const Bf16* __restrict even, const Bf16* __restrict odd,
                                     Bf16* __restrict out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    out[2 * i] = even[i];
    out[2 * i + 1] = odd[i];
  }
}

PRICER_VECTOR_CLONES void WidenPairs(const Bf16* __restrict pairs, float* __restrict even,
                                     float* __restrict odd, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    even[i] = Widen(pairs[2 * i]);
    odd[i] = Widen(pairs[2 * i + 1]);
  }
}

PRICER_VECTOR_CLONES void Swiglu(const float* gate, const float* up, float* out, int64_t n) {
  SwigluOf(gate, up, out, n);
}
PRICER_VECTOR_CLONES void Swiglu(const Bf16* gate, const Bf16* up, Bf16* out, int64_t n) {
  SwigluOf(gate, up, out, n);
}

PRICER_VECTOR_CLONES void SwigluGradient(const float* grad, const float* gate, const float* up,
                                         float* grad_gate, float* grad_up, int64_t n) {
  SwigluGradientOf(grad, gate, up, grad_gate, grad_up, n);
}
PRICER_VECTOR_CLONES void SwigluGradient(const Bf16* grad, const Bf16* gate, const Bf16* up,
                                         Bf16* grad_gate, Bf16* grad_up, int64_t n) {
  SwigluGradientOf(grad, gate, up, grad_gate, grad_up, n);
}

PRICER_VECTOR_CLONES float Max(const float* x, int64_t n) { return MaxOf(x, n); }

PRICER_VECTOR_CLONES float ExpAndSum(const float* x, float scale, float shift, float* out,
                                     int64_t n) {
  return ExpAndSumOf(x, scale, shift, out, n);
}
PRICER_VECTOR_CLONES float ExpAndSum(const float* x, float scale, float shift, Bf16* out,
                                     int64_t n) {
  return ExpAndSumOf(x, scale, shift, out, n);
}

PRICER_VECTOR_CLONES void AttentionGradient(const float* scores, const float* grad_probabilities,
                                            const float* log_sum_exp, const float* grad_dot_out,
                                            float scale, float* probabilities, float* grad_scores,
                                            int64_t n) {
  AttentionGradientOf(scores, grad_probabilities, log_sum_exp, grad_dot_out, scale, probabilities,
                      grad_scores, n);
}
PRICER_VECTOR_CLONES void AttentionGradient(const float* scores, const float* grad_probabilities,
                                            const float* log_sum_exp, const float* grad_dot_out,
                                            float scale, Bf16* probabilities, Bf16* grad_scores,
                                            int64_t n) {
  AttentionGradientOf(scores, grad_probabilities, log_sum_exp, grad_dot_out, scale, probabilities,
                      grad_scores, n);
}

PRICER_VECTOR_CLONES void Rotate(float* head, const float* cos, const float* sin, int64_t half) {
  RotateHead(head, head + half, cos, sin, 1.0f, half);
}
PRICER_VECTOR_CLONES void Rotate(Bf16* head, const float* cos, const float* sin, int64_t half) {
  RotateHead(head, head + half, cos, sin, 1.0f, half);
}

PRICER_VECTOR_CLONES void RotateBack(float* head, const float* cos, const float* sin,
                                     int64_t half) {
  RotateHead(head, head + half, cos, sin, -1.0f, half);
}
PRICER_VECTOR_CLONES void RotateBack(Bf16* head, const float* cos, const float* sin, int64_t half) {
  RotateHead(head, head + half, cos, sin, -1.0f, half);
}

}  // namespace pricer::row
