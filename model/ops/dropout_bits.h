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

// Bits of some rows, `channels` of each: row t's words begin at bits + t * stride.
struct DropoutBlock {
  const uint32_t* bits = nullptr;
  int64_t stride = 0;
  int64_t rows = 0;
  int64_t channels = 0;
};

// out[t, c] = x[t, c] where the channel's bit is set, else 0: of values of 4 and of 2 bytes. Row t
// is at x + t * x_stride and out + t * out_stride.
void KeepElements(const DropoutBlock& block, const uint32_t* x, int64_t x_stride, uint32_t* out,
                  int64_t out_stride);
void KeepElements(const DropoutBlock& block, const uint16_t* x, int64_t x_stride, uint16_t* out,
                  int64_t out_stride);

// sum[t, c] += x[t, c] where the channel's bit is set; row t of both at t * stride.
void AccumulateKept(const DropoutBlock& block, const float* x, float* sum, int64_t stride);

// The same by a chosen instruction set; to compare them.
enum class DropoutKernel { kPortable, kAvx2, kAvx512 };
bool SupportsDropoutKernel(DropoutKernel kernel);
// REQUIRES: SupportsDropoutKernel(kernel).
void DropoutBits(DropoutKernel kernel, const DropoutRowKey& row, absl::Span<uint32_t> bits);
void KeepElements(DropoutKernel kernel, const DropoutBlock& block, const uint32_t* x,
                  int64_t x_stride, uint32_t* out, int64_t out_stride);
void KeepElements(DropoutKernel kernel, const DropoutBlock& block, const uint16_t* x,
                  int64_t x_stride, uint16_t* out, int64_t out_stride);
void AccumulateKept(DropoutKernel kernel, const DropoutBlock& block, const float* x, float* sum,
                    int64_t stride);

}  // namespace pricer
