#pragma once

#include <array>
#include <cstdint>
#include <vector>

// The numbers that NF4 is made of, for every processor.

namespace pricer {

inline constexpr int64_t kNf4BlockSize = 64;
inline constexpr int64_t kNf4NestedBlockSize = 256;

// The 16 levels of NF4: quantiles of the normal distribution, scaled to [-1, 1]; bitsandbytes
// functional.py.
extern const std::array<float, 16> kNf4Levels;
// The signed dynamic 8-bit map of double quantization, as numbers: a formula differs by 1 ulp in 72
// entries.
extern const std::array<float, 256> kDynamicMap;

// Midpoints of neighbouring levels, rounded to fp32 as bitsandbytes does; a value on one takes the
// lower code.
inline constexpr std::array<float, 15> kNf4Thresholds = {
    -0.8480964f,  -0.6106329f,   -0.45999527f, -0.33967942f, -0.2346074f,
    -0.13791174f, -0.045525018f, 0.03979015f,  0.12025525f,  0.20352125f,
    0.29201376f,  0.38931254f,   0.50166345f,  0.6427869f,   0.86147845f};
inline constexpr uint8_t kNf4ZeroCode = 7;
// bitsandbytes clamps absmax here before it divides. A subnormal, whose reciprocal is finite.
inline constexpr float kNf4SmallestAbsmax = 1e-38f;

// bitsandbytes' CPU path does not search the dynamic map: it rounds to one of 65,536 steps over
// [-1, 1], each of which has its code (csrc/cpu_ops.cpp, build_quantize_lut). Those codes.
std::vector<uint8_t> MakeNf4DynamicCodes();

}  // namespace pricer
