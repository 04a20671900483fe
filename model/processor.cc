#include "model/processor.h"

#include <cpuid.h>

namespace pricer {
namespace {

struct Registers {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

// Zeros where the processor has no such leaf.
Registers Leaf(unsigned leaf, unsigned sub_leaf) {
  Registers r;
  if (__get_cpuid_count(leaf, sub_leaf, &r.eax, &r.ebx, &r.ecx, &r.edx) == 0) return {};
  return r;
}

bool Bit(unsigned value, int bit) { return (value >> bit & 1) != 0; }

}  // namespace

// Leaf 1: FMA is bit 12 of ecx. Leaf 7: AVX2 is bit 5 of ebx and AMX-BF16 bit 22 of edx in sub-leaf
// 0, AVX512-BF16 bit 5 of eax in sub-leaf 1 (Intel SDM, CPUID).
ProcessorFeatures ThisProcessor() {
  const Registers features = Leaf(1, 0);
  const Registers extended = Leaf(7, 0);
  return {.avx2 = Bit(features.ecx, 12) && Bit(extended.ebx, 5),
          .multiplies_bf16 = Bit(extended.edx, 22) || Bit(Leaf(7, 1).eax, 5)};
}

std::string ProcessorWarning(const ProcessorFeatures& processor, bool bf16) {
  if (!processor.avx2) {
    return "the processor has no AVX2: it computes many times more slowly than one that has; "
           "choose "
           "another machine type";
  }
  if (bf16 && !processor.multiplies_bf16) {
    return "the processor multiplies bf16 only by way of fp32 (it has neither AVX512-BF16 nor "
           "AMX): "
           "--dtype fp32 is faster here";
  }
  return "";
}

}  // namespace pricer
