#pragma once

#include <array>
#include <cstdint>

#include "absl/types/span.h"

namespace pricer {

// What decides which elements of one row dropout keeps: Philox4x32-10 with counter (counter[0],
// counter[1], counter[2], channel / 4), of which word channel % 4 belongs to the channel. It is
// kept where the word's upper 24 bits are at least `threshold`.
struct DropoutRowKey {
  std::array<uint32_t, 2> key;
  std::array<uint32_t, 3> counter;
  uint32_t threshold = 0;  // p * 2^24
};

// Bit c % 32 of bits[c / 32] says whether channel c is kept, 32 channels for each word. By the
// widest instruction set that the processor has.
void DropoutBits(const DropoutRowKey& row, absl::Span<uint32_t> bits);

// out[c] = x[c] where the channel's bit is set, else 0: of values of 4 and of 2 bytes, n of them.
void KeepElements(const uint32_t* bits, const uint32_t* x, uint32_t* out, int64_t n);
void KeepElements(const uint32_t* bits, const uint16_t* x, uint16_t* out, int64_t n);

// sum[c] += x[c] where the channel's bit is set.
void AccumulateKept(const uint32_t* bits, const float* x, float* sum, int64_t n);

// The same by a chosen one; to compare them.
enum class DropoutKernel { kPortable, kAvx2, kAvx512 };
bool SupportsDropoutKernel(DropoutKernel kernel);
// REQUIRES: SupportsDropoutKernel(kernel).
void DropoutBits(DropoutKernel kernel, const DropoutRowKey& row, absl::Span<uint32_t> bits);
void KeepElements(DropoutKernel kernel, const uint32_t* bits, const uint32_t* x, uint32_t* out,
                  int64_t n);
void KeepElements(DropoutKernel kernel, const uint32_t* bits, const uint16_t* x, uint16_t* out,
                  int64_t n);
void AccumulateKept(DropoutKernel kernel, const uint32_t* bits, const float* x, float* sum,
                    int64_t n);

}  // namespace pricer
