#pragma once

#include <string>

namespace pricer {

// What of an x86-64 processor decides how fast it computes.
struct ProcessorFeatures {
  // AVX2 with FMA: below it libtorch's products are many times slower.
  bool avx2 = false;
  // AVX512-BF16 or AMX-BF16: it multiplies bf16 itself; else bf16 is slower than fp32.
  bool multiplies_bf16 = false;
};

// Of this machine.
ProcessorFeatures ThisProcessor();

// Why computing on it in bf16, or else in fp32, is far below what processors of today do, and what
// to do about it; empty where it is not.
std::string ProcessorWarning(const ProcessorFeatures& processor, bool bf16);

}  // namespace pricer
