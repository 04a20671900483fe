#include "model/ops/dropout_bits.h"

#include "model/philox.h"

#if defined(__x86_64__)
#if defined(__GNUC__) && !defined(__clang__)
// GCC 12 warns of what its own header leaves undefined on purpose (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#endif

namespace pricer {
namespace {

// Counters that fill one word of bits.
constexpr uint32_t kCountersPerWord = 8;

void PortableBits(const DropoutRowKey& row, absl::Span<uint32_t> bits) {
  uint32_t group = 0;
  for (uint32_t& word : bits) {
    word = 0;
    for (uint32_t j = 0; j < kCountersPerWord; ++j, ++group) {
      const PhiloxCounter random =
          Philox4x32({row.counter[0], row.counter[1], row.counter[2], group}, row.key);
      for (uint32_t w = 0; w < 4; ++w) {
        if (random[w] >> 8 >= row.threshold) word |= uint32_t{1} << (4 * j + w);
      }
    }
  }
}

// Channels in whole words of bits, which the wide kernels take.
int64_t WholeWords(int64_t channels) { return channels / 32 * 32; }

bool IsKept(const DropoutBlock& block, int64_t row, int64_t channel) {
  return (block.bits[row * block.stride + channel / 32] >> (channel % 32) & 1) != 0;
}

template <typename T>
void PortableKeep(const DropoutBlock& block, int64_t begin, const T* x, int64_t x_stride, T* out,
                  int64_t out_stride) {
  for (int64_t t = 0; t < block.rows; ++t) {
    for (int64_t c = begin; c < block.channels; ++c) {
      out[t * out_stride + c] = IsKept(block, t, c) ? x[t * x_stride + c] : T{0};
    }
  }
}

void PortableAccumulate(const DropoutBlock& block, int64_t begin, const float* x, float* sum,
                        int64_t stride) {
  for (int64_t t = 0; t < block.rows; ++t) {
    for (int64_t c = begin; c < block.channels; ++c) {
      if (IsKept(block, t, c)) sum[t * stride + c] += x[t * stride + c];
    }
  }
}

#if defined(__x86_64__)

// Each word of a counter stands in a lane of 64 bits, so that one instruction multiplies it to all
// 64 bits of its product; what an upper half holds is never read.

// The round keys of every lane.
struct Avx512Keys {
  __m512i key0[kPhiloxRounds];
  __m512i key1[kPhiloxRounds];
};

// Eight counters.
struct Avx512Counters {
  __m512i word0, word1, word2, word3;
};

// After the first round, in which all counters of a row have the same products.
__attribute__((target("avx512f"))) inline Avx512Counters Avx512Start(const Avx512Counters& row,
                                                                     uint32_t group) {
  const __m512i groups =
      _mm512_add_epi64(_mm512_set1_epi64(group), _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0));
  return {row.word0, row.word1, _mm512_xor_si512(row.word2, groups), row.word3};
}

__attribute__((target("avx512f"))) inline void Avx512Round(const Avx512Keys& keys, int round,
                                                           Avx512Counters& x) {
  const __m512i product0 = _mm512_mul_epu32(x.word0, _mm512_set1_epi64(kPhiloxMultiplier0));
  const __m512i product1 = _mm512_mul_epu32(x.word2, _mm512_set1_epi64(kPhiloxMultiplier1));
  constexpr int kXorOfThree = 0x96;
  x.word0 = _mm512_ternarylogic_epi64(_mm512_srli_epi64(product1, 32), x.word1, keys.key0[round],
                                      kXorOfThree);
  x.word2 = _mm512_ternarylogic_epi64(_mm512_srli_epi64(product0, 32), x.word3, keys.key1[round],
                                      kXorOfThree);
  x.word1 = product1;
  x.word3 = product0;
}

__attribute__((target("avx512f"))) inline uint32_t Avx512Kept(const Avx512Counters& x,
                                                              const __m512i& threshold) {
  const __m512i first = _mm512_set_epi64(11, 3, 10, 2, 9, 1, 8, 0);
  const __m512i second = _mm512_set_epi64(15, 7, 14, 6, 13, 5, 12, 4);
  // Words 0 and 1, then 2 and 3 of a counter side by side, then counter after counter.
  const __m512i words01 = _mm512_mask_blend_epi32(0xAAAA, x.word0, _mm512_slli_epi64(x.word1, 32));
  const __m512i words23 = _mm512_mask_blend_epi32(0xAAAA, x.word2, _mm512_slli_epi64(x.word3, 32));
  const auto kept = [&](const __m512i& order) __attribute__((target("avx512f"))) {
    const __m512i words = _mm512_permutex2var_epi64(words01, order, words23);
    return static_cast<uint32_t>(_mm512_cmpge_epu32_mask(_mm512_srli_epi32(words, 8), threshold));
  };
  return kept(first) | kept(second) << 16;
}

// Words by threes: the steps of one counter wait for each other.
__attribute__((target("avx512f"))) void Avx512Bits(const DropoutRowKey& row,
                                                   absl::Span<uint32_t> bits) {
  Avx512Keys keys;
  PhiloxKey key = row.key;
  for (int round = 0; round < kPhiloxRounds; ++round, key = NextPhiloxKey(key)) {
    keys.key0[round] = _mm512_set1_epi64(key[0]);
    keys.key1[round] = _mm512_set1_epi64(key[1]);
  }
  const __m512i threshold = _mm512_set1_epi32(static_cast<int>(row.threshold));
  const uint64_t product0 = uint64_t{row.counter[0]} * kPhiloxMultiplier0;
  const uint64_t product1 = uint64_t{row.counter[2]} * kPhiloxMultiplier1;
  const Avx512Counters of_row = {
      _mm512_set1_epi64(static_cast<int64_t>((product1 >> 32) ^ row.counter[1] ^ row.key[0])),
      _mm512_set1_epi64(static_cast<int64_t>(product1)),
      _mm512_set1_epi64(static_cast<int64_t>((product0 >> 32) ^ row.key[1])),
      _mm512_set1_epi64(static_cast<int64_t>(product0))};
  for (size_t w = 0; w < bits.size(); w += 3) {
    const auto group = static_cast<uint32_t>(w) * kCountersPerWord;
    Avx512Counters a = Avx512Start(of_row, group);
    Avx512Counters b = Avx512Start(of_row, group + kCountersPerWord);
    Avx512Counters c = Avx512Start(of_row, group + 2 * kCountersPerWord);
    for (int round = 1; round < kPhiloxRounds; ++round) {
      Avx512Round(keys, round, a);
      Avx512Round(keys, round, b);
      Avx512Round(keys, round, c);
    }
    bits[w] = Avx512Kept(a, threshold);
    if (w + 1 < bits.size()) bits[w + 1] = Avx512Kept(b, threshold);
    if (w + 2 < bits.size()) bits[w + 2] = Avx512Kept(c, threshold);
  }
}

// Four counters of Avx512Bits: 16 bits.
__attribute__((target("avx2"))) inline uint32_t Avx2HalfWord(const DropoutRowKey& row,
                                                             uint32_t group) {
  const __m256i multiplier0 = _mm256_set1_epi64x(kPhiloxMultiplier0);
  const __m256i multiplier1 = _mm256_set1_epi64x(kPhiloxMultiplier1);
  __m256i word0 = _mm256_set1_epi64x(row.counter[0]);
  __m256i word1 = _mm256_set1_epi64x(row.counter[1]);
  __m256i word2 = _mm256_set1_epi64x(row.counter[2]);
  __m256i word3 = _mm256_set_epi64x(group + 3, group + 2, group + 1, group);
  PhiloxKey key = row.key;
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const __m256i product0 = _mm256_mul_epu32(word0, multiplier0);
    const __m256i product1 = _mm256_mul_epu32(word2, multiplier1);
    word0 = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(product1, 32), word1),
                             _mm256_set1_epi64x(key[0]));
    word2 = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(product0, 32), word3),
                             _mm256_set1_epi64x(key[1]));
    word1 = product1;
    word3 = product0;
    key = NextPhiloxKey(key);
  }
  const __m256i words01 = _mm256_blend_epi32(word0, _mm256_slli_epi64(word1, 32), 0xAA);
  const __m256i words23 = _mm256_blend_epi32(word2, _mm256_slli_epi64(word3, 32), 0xAA);
  const __m256i even = _mm256_unpacklo_epi64(words01, words23);  // counters 0 and 2
  const __m256i odd = _mm256_unpackhi_epi64(words01, words23);
  // Signed comparison does: 24 bits are left.
  const __m256i below = _mm256_set1_epi32(static_cast<int>(row.threshold) - 1);
  const auto kept = [&](const __m256i& words) __attribute__((target("avx2"))) {
    const __m256i is_kept = _mm256_cmpgt_epi32(_mm256_srli_epi32(words, 8), below);
    return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(is_kept)));
  };
  return kept(_mm256_permute2x128_si256(even, odd, 0x20)) |
         kept(_mm256_permute2x128_si256(even, odd, 0x31)) << 8;
}

__attribute__((target("avx2"))) void Avx2Bits(const DropoutRowKey& row, absl::Span<uint32_t> bits) {
  uint32_t group = 0;
  for (uint32_t& word : bits) {
    word = Avx2HalfWord(row, group) | Avx2HalfWord(row, group + 4) << 16;
    group += kCountersPerWord;
  }
}

// The following take the whole words of each row.

__attribute__((target("avx512f"))) void Avx512Keep(const DropoutBlock& block, const uint32_t* x,
                                                   int64_t x_stride, uint32_t* out,
                                                   int64_t out_stride) {
  for (int64_t t = 0; t < block.rows; ++t, x += x_stride, out += out_stride) {
    const uint32_t* bits = block.bits + t * block.stride;
    for (int64_t c = 0; c + 32 <= block.channels; c += 32, ++bits) {
      const auto low = static_cast<__mmask16>(*bits);
      const auto high = static_cast<__mmask16>(*bits >> 16);
      _mm512_storeu_si512(out + c, _mm512_maskz_loadu_epi32(low, x + c));
      _mm512_storeu_si512(out + c + 16, _mm512_maskz_loadu_epi32(high, x + c + 16));
    }
  }
}

__attribute__((target("avx512bw"))) void Avx512Keep(const DropoutBlock& block, const uint16_t* x,
                                                    int64_t x_stride, uint16_t* out,
                                                    int64_t out_stride) {
  for (int64_t t = 0; t < block.rows; ++t, x += x_stride, out += out_stride) {
    const uint32_t* bits = block.bits + t * block.stride;
    for (int64_t c = 0; c + 32 <= block.channels; c += 32, ++bits) {
      _mm512_storeu_si512(out + c, _mm512_maskz_loadu_epi16(*bits, x + c));
    }
  }
}

__attribute__((target("avx512f"))) void Avx512Accumulate(const DropoutBlock& block, const float* x,
                                                         float* sum, int64_t stride) {
  for (int64_t t = 0; t < block.rows; ++t, x += stride, sum += stride) {
    const uint32_t* bits = block.bits + t * block.stride;
    for (int64_t c = 0; c + 32 <= block.channels; c += 32, ++bits) {
      for (int part = 0; part < 2; ++part) {
        const auto kept = static_cast<__mmask16>(*bits >> (16 * part));
        float* const to = sum + c + 16 * part;
        const __m512 before = _mm512_loadu_ps(to);
        const __m512 added = _mm512_loadu_ps(x + c + 16 * part);
        _mm512_storeu_ps(to, _mm512_mask_add_ps(before, kept, before, added));
      }
    }
  }
}

// All ones in the lanes of sizeof(T) bytes whose bit in the word is set.
template <typename T>
__attribute__((target("avx2"))) inline __m256i Avx2Lanes(uint32_t word) {
  if constexpr (sizeof(T) == 4) {
    const __m256i places = _mm256_set_epi32(128, 64, 32, 16, 8, 4, 2, 1);
    const __m256i spread = _mm256_set1_epi32(static_cast<int>(word));
    return _mm256_cmpeq_epi32(_mm256_and_si256(spread, places), places);
  } else {
    const __m256i places = _mm256_set_epi16(-32768, 16384, 8192, 4096, 2048, 1024, 512, 256, 128,
                                            64, 32, 16, 8, 4, 2, 1);
    const __m256i spread = _mm256_set1_epi16(static_cast<int16_t>(word));
    return _mm256_cmpeq_epi16(_mm256_and_si256(spread, places), places);
  }
}

template <typename T>
__attribute__((target("avx2"))) void Avx2Keep(const DropoutBlock& block, const T* x,
                                              int64_t x_stride, T* out, int64_t out_stride) {
  constexpr int64_t kLanes = 32 / static_cast<int64_t>(sizeof(T));
  for (int64_t t = 0; t < block.rows; ++t, x += x_stride, out += out_stride) {
    const uint32_t* bits = block.bits + t * block.stride;
    for (int64_t c = 0; c + 32 <= block.channels; ++bits) {
      for (int64_t lane = 0; lane < 32; lane += kLanes, c += kLanes) {
        const __m256i all = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + c));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + c),
                            _mm256_and_si256(all, Avx2Lanes<T>(*bits >> lane)));
      }
    }
  }
}

__attribute__((target("avx2"))) void Avx2Accumulate(const DropoutBlock& block, const float* x,
                                                    float* sum, int64_t stride) {
  for (int64_t t = 0; t < block.rows; ++t, x += stride, sum += stride) {
    const uint32_t* bits = block.bits + t * block.stride;
    for (int64_t c = 0; c + 32 <= block.channels; c += 32, ++bits) {
      for (int part = 0; part < 4; ++part) {
        const __m256 lanes = _mm256_castsi256_ps(Avx2Lanes<float>(*bits >> (8 * part)));
        const __m256 added = _mm256_and_ps(_mm256_loadu_ps(x + c + 8 * part), lanes);
        float* const to = sum + c + 8 * part;
        _mm256_storeu_ps(to, _mm256_add_ps(_mm256_loadu_ps(to), added));
      }
    }
  }
}

#endif

template <typename T>
void Keep(DropoutKernel kernel, const DropoutBlock& block, const T* x, int64_t x_stride, T* out,
          int64_t out_stride) {
  int64_t done = 0;
#if defined(__x86_64__)
  if (kernel != DropoutKernel::kPortable) done = WholeWords(block.channels);
  if (kernel == DropoutKernel::kAvx512) Avx512Keep(block, x, x_stride, out, out_stride);
  if (kernel == DropoutKernel::kAvx2) Avx2Keep(block, x, x_stride, out, out_stride);
#endif
  PortableKeep(block, done, x, x_stride, out, out_stride);
}

DropoutKernel FindWidestKernel() {
  for (const DropoutKernel kernel : {DropoutKernel::kAvx512, DropoutKernel::kAvx2}) {
    if (SupportsDropoutKernel(kernel)) return kernel;
  }
  return DropoutKernel::kPortable;
}

DropoutKernel WidestKernel() {
  static const DropoutKernel kernel = FindWidestKernel();
  return kernel;
}

}  // namespace

bool SupportsDropoutKernel(DropoutKernel kernel) {
#if defined(__x86_64__)
  if (kernel == DropoutKernel::kAvx512) {
    return __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512bw") != 0;
  }
  if (kernel == DropoutKernel::kAvx2) return __builtin_cpu_supports("avx2") != 0;
#endif
  return kernel == DropoutKernel::kPortable;
}

void DropoutBits(DropoutKernel kernel, const DropoutRowKey& row, absl::Span<uint32_t> bits) {
#if defined(__x86_64__)
  if (kernel == DropoutKernel::kAvx512) return Avx512Bits(row, bits);
  if (kernel == DropoutKernel::kAvx2) return Avx2Bits(row, bits);
#endif
  PortableBits(row, bits);
}

void DropoutBits(const DropoutRowKey& row, absl::Span<uint32_t> bits) {
  DropoutBits(WidestKernel(), row, bits);
}

void KeepElements(DropoutKernel kernel, const DropoutBlock& block, const uint32_t* x,
                  int64_t x_stride, uint32_t* out, int64_t out_stride) {
  Keep(kernel, block, x, x_stride, out, out_stride);
}

void KeepElements(DropoutKernel kernel, const DropoutBlock& block, const uint16_t* x,
                  int64_t x_stride, uint16_t* out, int64_t out_stride) {
  Keep(kernel, block, x, x_stride, out, out_stride);
}

void KeepElements(const DropoutBlock& block, const uint32_t* x, int64_t x_stride, uint32_t* out,
                  int64_t out_stride) {
  Keep(WidestKernel(), block, x, x_stride, out, out_stride);
}

void KeepElements(const DropoutBlock& block, const uint16_t* x, int64_t x_stride, uint16_t* out,
                  int64_t out_stride) {
  Keep(WidestKernel(), block, x, x_stride, out, out_stride);
}

void AccumulateKept(DropoutKernel kernel, const DropoutBlock& block, const float* x, float* sum,
                    int64_t stride) {
  int64_t done = 0;
#if defined(__x86_64__)
  if (kernel != DropoutKernel::kPortable) done = WholeWords(block.channels);
  if (kernel == DropoutKernel::kAvx512) Avx512Accumulate(block, x, sum, stride);
  if (kernel == DropoutKernel::kAvx2) Avx2Accumulate(block, x, sum, stride);
#endif
  PortableAccumulate(block, done, x, sum, stride);
}

void AccumulateKept(const DropoutBlock& block, const float* x, float* sum, int64_t stride) {
  AccumulateKept(WidestKernel(), block, x, sum, stride);
}

}  // namespace pricer
