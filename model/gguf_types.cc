#include "model/gguf_types.h"

#include <bit>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "model/gguf.h"

namespace pricer {
namespace {

// Values in a block of Q4_0, Q4_1 and Q8_0.
constexpr int64_t kBlock = 32;

float HalfToFloat(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
  const uint32_t exponent = half >> 10 & 0x1f;
  const uint32_t mantissa = half & 0x3ff;
  if (exponent == 0) {
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return std::bit_cast<float>(std::bit_cast<uint32_t>(magnitude) | sign);
  }
  const uint32_t wide = exponent == 0x1f ? 0xff : exponent + (127 - 15);
  return std::bit_cast<float>(sign | wide << 23 | mantissa << 13);
}

template <typename T>
T Load(const char* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof(T));
  return value;
}

float LoadHalf(const char* bytes) { return HalfToFloat(Load<uint16_t>(bytes)); }

float LoadBfloat16(const char* bytes) {
  return std::bit_cast<float>(static_cast<uint32_t>(Load<uint16_t>(bytes)) << 16);
}

void DequantizeQ8_0(const char* block, float* out) {
  const float scale = LoadHalf(block);
  for (int i = 0; i < kBlock; ++i) {
    out[i] = scale * static_cast<float>(static_cast<int8_t>(block[2 + i]));
  }
}

// Low nibbles are values 0 to 15, high nibbles 16 to 31.
template <typename ValueOf>
void DequantizeNibbles(const char* nibbles, float* out, ValueOf value_of) {
  for (int i = 0; i < kBlock / 2; ++i) {
    const int byte = static_cast<uint8_t>(nibbles[i]);
    out[i] = value_of(byte & 0xf);
    out[i + kBlock / 2] = value_of(byte >> 4);
  }
}

void DequantizeQ4_0(const char* block, float* out) {
  const float scale = LoadHalf(block);
  DequantizeNibbles(block + 2, out, [&](int q) { return scale * static_cast<float>(q - 8); });
}

// The product is exact in fp32, so it does not matter whether the compiler fuses the addition.
void DequantizeQ4_1(const char* block, float* out) {
  const float scale = LoadHalf(block);
  const float minimum = LoadHalf(block + 2);
  DequantizeNibbles(block + 4, out, [&](int q) { return scale * static_cast<float>(q) + minimum; });
}

void DequantizeUnit(GgmlType type, const char* bytes, float* out) {
  switch (type) {
    case GgmlType::kF32:
      *out = Load<float>(bytes);
      return;
    case GgmlType::kF16:
      *out = LoadHalf(bytes);
      return;
    case GgmlType::kBF16:
      *out = LoadBfloat16(bytes);
      return;
    case GgmlType::kQ8_0:
      DequantizeQ8_0(bytes, out);
      return;
    case GgmlType::kQ4_0:
      DequantizeQ4_0(bytes, out);
      return;
    case GgmlType::kQ4_1:
      DequantizeQ4_1(bytes, out);
      return;
  }
}

}  // namespace

absl::string_view GgmlTypeName(uint32_t type) {
  constexpr std::pair<uint32_t, absl::string_view> kNames[] = {
      {0, "F32"},     {1, "F16"},      {2, "Q4_0"},   {3, "Q4_1"},    {6, "Q5_0"},
      {7, "Q5_1"},    {8, "Q8_0"},     {9, "Q8_1"},   {10, "Q2_K"},   {11, "Q3_K"},
      {12, "Q4_K"},   {13, "Q5_K"},    {14, "Q6_K"},  {15, "Q8_K"},   {16, "IQ2_XXS"},
      {17, "IQ2_XS"}, {18, "IQ3_XXS"}, {19, "IQ1_S"}, {20, "IQ4_NL"}, {21, "IQ3_S"},
      {22, "IQ2_S"},  {23, "IQ4_XS"},  {24, "I8"},    {25, "I16"},    {26, "I32"},
      {27, "I64"},    {28, "F64"},     {29, "IQ1_M"}, {30, "BF16"},   {34, "TQ1_0"},
      {35, "TQ2_0"},  {39, "MXFP4"},   {40, "NVFP4"}, {41, "Q1_0"},
  };
  for (const auto& [number, name] : kNames) {
    if (number == type) return name;
  }
  return "unknown";
}

GgmlUnit GgmlUnitOf(uint32_t type) {
  switch (static_cast<GgmlType>(type)) {
    case GgmlType::kF32:
      return {1, 4};
    case GgmlType::kF16:
    case GgmlType::kBF16:
      return {1, 2};
    case GgmlType::kQ4_0:
      return {kBlock, 18};
    case GgmlType::kQ4_1:
      return {kBlock, 20};
    case GgmlType::kQ8_0:
      return {kBlock, 34};
  }
  return {};
}

void DequantizeGguf(const GgufTensor& tensor, absl::Span<float> out) {
  PRICER_CHECK(static_cast<int64_t>(out.size()) == tensor.element_count());
  const GgmlUnit unit = GgmlUnitOf(static_cast<uint32_t>(tensor.type));
  const char* bytes = tensor.data.data();
  for (size_t i = 0; i < out.size(); i += unit.values, bytes += unit.bytes) {
    DequantizeUnit(tensor.type, bytes, out.data() + i);
  }
}

}  // namespace pricer
