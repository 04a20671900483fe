#include "model/gguf_types.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "model/gguf.h"
#include "tests/testing/gguf_builder.h"

namespace pricer {
namespace {

using ::pricer::testing::Raw;

std::vector<float> Dequantize(GgmlType type, const std::string& data, int64_t count) {
  std::vector<float> values(count);
  DequantizeGguf({type, {count}, data}, absl::MakeSpan(values));
  return values;
}

// By the definition: sign, exponent of bias 15, 10 bits of mantissa.
double HalfValue(uint16_t half) {
  const int exponent = half >> 10 & 0x1f;
  const int mantissa = half & 0x3ff;
  const double sign = half & 0x8000 ? -1 : 1;
  if (exponent == 31) return mantissa == 0 ? sign * INFINITY : NAN;
  if (exponent == 0) return sign * std::ldexp(mantissa, -24);
  return sign * std::ldexp(1024 + mantissa, exponent - 25);
}

TEST(GgufTypesTest, ReadsEveryHalf) {
  std::string data;
  for (uint32_t half = 0; half < 65536; ++half) data += Raw<uint16_t>(half);
  const std::vector<float> values = Dequantize(GgmlType::kF16, data, 65536);
  for (uint32_t half = 0; half < 65536; ++half) {
    const double expected = HalfValue(half);
    if (std::isnan(expected)) {
      EXPECT_TRUE(std::isnan(values[half])) << half;
    } else {
      ASSERT_EQ(values[half], expected) << half;
      ASSERT_EQ(std::signbit(values[half]), (half & 0x8000) != 0) << half;
    }
  }
}

TEST(GgufTypesTest, Bfloat16IsTheUpperHalfOfAFloat) {
  const std::vector<float> values = Dequantize(
      GgmlType::kBF16, Raw<uint16_t>(0x3f80) + Raw<uint16_t>(0xc049) + Raw<uint16_t>(0x0001), 3);
  EXPECT_EQ(values[0], 1.0f);
  EXPECT_EQ(values[1], -3.140625f);
  EXPECT_EQ(values[2], std::ldexp(1.0f, -133));
}

TEST(GgufTypesTest, Q8_0IsScaleTimesSignedByte) {
  std::string data = Raw<uint16_t>(0x3800);  // 0.5
  for (int i = 0; i < 32; ++i) data += static_cast<char>(i * 8 - 128);
  const std::vector<float> values = Dequantize(GgmlType::kQ8_0, data, 32);
  for (int i = 0; i < 32; ++i) EXPECT_EQ(values[i], 0.5f * static_cast<float>(i * 8 - 128)) << i;
}

// Bytes whose low nibble is i and whose high nibble is 15 - i.
std::string Nibbles() {
  std::string bytes;
  for (int i = 0; i < 16; ++i) bytes += static_cast<char>((15 - i) << 4 | i);
  return bytes;
}

TEST(GgufTypesTest, Q4_0HasLowNibblesFirstAndZeroAtEight) {
  const std::vector<float> values =
      Dequantize(GgmlType::kQ4_0, Raw<uint16_t>(0xc000) + Nibbles(), 32);  // -2
  for (int i = 0; i < 16; ++i) {
    EXPECT_EQ(values[i], -2.0f * static_cast<float>(i - 8)) << i;
    EXPECT_EQ(values[16 + i], -2.0f * static_cast<float>(7 - i)) << i;
  }
}

TEST(GgufTypesTest, Q4_1AddsItsMinimum) {
  const std::string scales = Raw<uint16_t>(0x3400) + Raw<uint16_t>(0xbc00);  // 0.25, -1
  const std::vector<float> values = Dequantize(GgmlType::kQ4_1, scales + Nibbles(), 32);
  for (int i = 0; i < 16; ++i) {
    EXPECT_EQ(values[i], 0.25f * static_cast<float>(i) - 1.0f) << i;
    EXPECT_EQ(values[16 + i], 0.25f * static_cast<float>(15 - i) - 1.0f) << i;
  }
}

TEST(GgufTypesTest, BlocksFollowOneAnother) {
  const std::string first = Raw<uint16_t>(0x3c00) + std::string(32, '\x03');
  const std::string second = Raw<uint16_t>(0x4000) + std::string(32, '\x05');
  const std::vector<float> values = Dequantize(GgmlType::kQ8_0, first + second, 64);
  for (int i = 0; i < 64; ++i) EXPECT_EQ(values[i], i < 32 ? 3 : 10) << i;
}

TEST(GgufTypesTest, UnitsOfTypesThatAreNotReadAreEmpty) {
  EXPECT_EQ(GgmlUnitOf(2).values, 32);
  EXPECT_EQ(GgmlUnitOf(2).bytes, 18);
  EXPECT_EQ(GgmlUnitOf(12).values, 0);
  EXPECT_EQ(GgmlTypeName(12), "Q4_K");
  EXPECT_EQ(GgmlTypeName(999), "unknown");
}

}  // namespace
}  // namespace pricer
