#include "model/nf4.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/sha256.h"
#include "tests/testing/status_matchers.h"

namespace pricer {
namespace {

using ::pricer::testing::IsOk;
using ::pricer::testing::StatusIs;
using ::testing::AllOf;
using ::testing::Each;
using ::testing::HasSubstr;

constexpr int64_t kBlock = kNf4BlockSize;

std::vector<float> Normal(int64_t count, float scale, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

Nf4Tensor Quantize(const std::vector<float>& values, bool nested = true) {
  auto tensor = QuantizeNf4(values, {static_cast<int64_t>(values.size())}, Dtype::kF32, nested);
  EXPECT_THAT(tensor, IsOk());
  return *std::move(tensor);
}

std::vector<float> Dequantize(const Nf4Tensor& tensor) {
  std::vector<float> values(tensor.element_count());
  DequantizeNf4(tensor, absl::MakeSpan(values));
  return values;
}

int CodeAt(const Nf4Tensor& tensor, int64_t element) {
  const uint8_t byte = tensor.packed[element / 2];
  return element % 2 == 0 ? byte >> 4 : byte & 15;
}

template <typename T>
std::string Bytes(const std::vector<T>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

TEST(Nf4Test, LevelsAndDynamicMapAreSortedAndHoldTheEnds) {
  EXPECT_TRUE(std::is_sorted(kNf4Levels.begin(), kNf4Levels.end()));
  EXPECT_EQ(kNf4Levels[0], -1.0f);
  EXPECT_EQ(kNf4Levels[7], 0.0f);
  EXPECT_EQ(kNf4Levels[15], 1.0f);
  EXPECT_TRUE(std::is_sorted(kDynamicMap.begin(), kDynamicMap.end()));
  EXPECT_EQ(kDynamicMap[127], 0.0f);
  EXPECT_EQ(kDynamicMap[255], 1.0f);
  for (int i = 0; i < 127; ++i) EXPECT_EQ(kDynamicMap[i], -kDynamicMap[254 - i]) << i;
}

TEST(Nf4Test, EveryValueTakesTheNearestLevel) {
  const std::vector<float> values = Normal(64 * 500, 0.02f, 1);
  const Nf4Tensor tensor = Quantize(values, false);
  for (int64_t i = 0; i < static_cast<int64_t>(values.size()); ++i) {
    const double x = static_cast<double>(values[i]) / tensor.absmax[i / kBlock];
    double nearest = std::numeric_limits<double>::infinity();
    for (const float level : kNf4Levels) nearest = std::min(nearest, std::fabs(x - level));
    EXPECT_NEAR(std::fabs(x - kNf4Levels[CodeAt(tensor, i)]), nearest, 1e-6) << i;
  }
}

// The statistics that bitsandbytes' own tests assert for a block size of 64.
TEST(Nf4Test, ErrorOverStandardNormalIsThatOfTheReference) {
  const std::vector<float> values = Normal(1024 * 1024, 1.0f, 2);
  const std::vector<float> decoded = Dequantize(Quantize(values, false));
  double absolute = 0;
  double relative = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    const double error = std::fabs(values[i] - decoded[i]);
    absolute += error;
    relative += error / (std::fabs(values[i]) + 1e-8);
  }
  const auto count = static_cast<double>(values.size());
  EXPECT_NEAR(absolute / count, 0.072798, 7 * 0.000074);
  EXPECT_NEAR(relative / count, 0.203339, 7 * 0.00036);
}

TEST(Nf4Test, RequantizingDecodedValuesChangesNothing) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const Nf4Tensor once = Quantize(Normal(64 * 7 + 32, std::exp2(4.0f * seed - 40), seed), false);
    const Nf4Tensor twice = Quantize(Dequantize(once), false);
    EXPECT_EQ(once.packed, twice.packed) << seed;
    EXPECT_EQ(once.absmax, twice.absmax) << seed;
  }
}

// bitsandbytes 0.50.2 on the same 1,500,000 values (1,500 x 1,000, one thread): enough blocks for
// every level of the mean's cascade, and a mean that differs from the double one.
TEST(Nf4Test, LargeTensorHasTheReferencesBytes) {
  std::vector<float> values(1'500'000);
  for (uint32_t i = 0; i < values.size(); ++i) {
    uint32_t hash = (i + 22'500'000) * 2654435761u;
    hash ^= hash >> 15;
    hash *= 2246822519u;
    hash ^= hash >> 13;
    const float unit = static_cast<float>(static_cast<int32_t>(hash) >> 8) * 0x1p-23f;
    values[i] = unit * static_cast<float>(1 + i / 64 * 7919 % 1024);
  }
  const Nf4Tensor tensor = Quantize(values);
  EXPECT_EQ(Sha256Hex(Bytes(tensor.packed)),
            "c460d05eedff64a386dc59b6ee12a484a2073716bae375a00a064bf8f8b9f439");
  EXPECT_EQ(Sha256Hex(Bytes(tensor.absmax_codes)),
            "f7fd91932015dfa01d2df5d5f5295f4a09c5ce27711a93c69f8e9234237dd666");
  EXPECT_EQ(Sha256Hex(Bytes(tensor.nested_absmax)),
            "a1f8eecd441faab0bc5c13387a363334ea320d4c5415e743bca544860b78e79a");
  EXPECT_EQ(std::bit_cast<uint32_t>(tensor.nested_offset), 0x43fc2033u);
}

TEST(Nf4Test, AllZeroBlocksTakeTheZeroCode) {
  std::vector<float> values = Normal(3 * kBlock, 1.0f, 3);
  std::fill_n(values.begin() + kBlock, kBlock, 0.0f);
  for (const bool nested : {false, true}) {
    const Nf4Tensor tensor = Quantize(values, nested);
    for (int64_t i = kBlock; i < 2 * kBlock; ++i) EXPECT_EQ(CodeAt(tensor, i), 7);
    const std::vector<float> decoded = Dequantize(tensor);
    for (int64_t i = kBlock; i < 2 * kBlock; ++i) EXPECT_EQ(decoded[i], 0.0f);
  }
  EXPECT_EQ(Quantize(values, false).absmax[1], 0.0f);
}

TEST(Nf4Test, AllZeroTailStoresTheClampedAbsmax) {
  std::vector<float> values = Normal(kBlock + 3, 1.0f, 4);
  std::fill(values.begin() + kBlock, values.end(), 0.0f);
  const Nf4Tensor tensor = Quantize(values, false);
  EXPECT_EQ(tensor.absmax[1], 1e-38f);
  EXPECT_EQ(tensor.packed[kBlock / 2], 0x77);
  EXPECT_EQ(tensor.packed[kBlock / 2 + 1], 0x77);
}

TEST(Nf4Test, OddCountPadsTheLastByteWithTheZeroCode) {
  const Nf4Tensor tensor = Quantize({0.5f, -1.0f, 1.0f}, false);
  EXPECT_EQ(tensor.packed, (std::vector<uint8_t>{12 << 4 | 0, 15 << 4 | 7}));
  EXPECT_EQ(Dequantize(tensor), (std::vector<float>{kNf4Levels[12], -1.0f, 1.0f}));
}

TEST(Nf4Test, FullBlocksMultiplyByTheReciprocalAndTheTailDivides) {
  constexpr float kAbsmax = 1.9256955f;
  constexpr float kBetween = -0.4517824f;  // the product rounds to code 4, the quotient to 5
  std::vector<float> values(kBlock + 3, kBetween);
  values[0] = values[kBlock] = kAbsmax;
  const Nf4Tensor tensor = Quantize(values, false);
  EXPECT_EQ(CodeAt(tensor, 1), 4);
  EXPECT_EQ(CodeAt(tensor, 2), 4);
  EXPECT_EQ(CodeAt(tensor, kBlock + 1), 5);
  EXPECT_EQ(CodeAt(tensor, kBlock + 2), 5);
}

TEST(Nf4Test, ThresholdsBelongToTheLowerCode) {
  std::vector<float> values(kBlock, 0.0f);
  values[0] = 1.0f;
  for (int i = 0; i < 15; ++i) {
    const float threshold = (kNf4Levels[i] + kNf4Levels[i + 1]) / 2.0f;
    values[1 + i] = threshold;
    values[20 + i] = std::nextafter(threshold, 2.0f);
  }
  const Nf4Tensor tensor = Quantize(values, false);
  for (int i = 0; i < 15; ++i) {
    EXPECT_EQ(CodeAt(tensor, 1 + i), i);
    EXPECT_EQ(CodeAt(tensor, 20 + i), i + 1);
  }
}

TEST(Nf4Test, EqualBlocksDecodeToTheOffsetExactly) {
  const Nf4Tensor tensor = Quantize(std::vector<float>(300 * kBlock, 0.78125f));
  EXPECT_EQ(tensor.nested_offset, 0.78125f);
  EXPECT_THAT(tensor.absmax_codes, Each(0));
  EXPECT_THAT(DecodeAbsmax(tensor), Each(0.78125f));
  EXPECT_THAT(Dequantize(tensor), Each(0.78125f));
}

TEST(Nf4Test, DoubleQuantizationErrsByAtMostHalfAStepOfTheMap) {
  const std::vector<float> values = Normal(64 * 1000 + 5, 0.05f, 5);
  const Nf4Tensor plain = Quantize(values, false);
  const Nf4Tensor nested = Quantize(values, true);
  EXPECT_EQ(plain.packed, nested.packed);
  ASSERT_EQ(nested.absmax_codes.size(), 1001u);
  ASSERT_EQ(nested.nested_absmax.size(), 4u);
  EXPECT_TRUE(nested.absmax.empty());
  const std::vector<float> decoded = DecodeAbsmax(nested);
  for (size_t i = 0; i < decoded.size(); ++i) {
    EXPECT_NEAR(decoded[i], plain.absmax[i], 0.0141 * nested.nested_absmax[i / 256]) << i;
  }
}

TEST(Nf4Test, BytesCountsEverythingStored) {
  EXPECT_EQ(Quantize(std::vector<float>(257 * kBlock, 1.0f), true).bytes(), 257 * 32 + 257 + 2 * 4);
  EXPECT_EQ(Quantize(std::vector<float>(257 * kBlock, 1.0f), false).bytes(), 257 * 32 + 257 * 4);
}

TEST(Nf4Test, NonFiniteValuesAreRefusedByElement) {
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    for (const int64_t element : {0, 77, 129}) {
      std::vector<float> values(130, 1.0f);
      values[element] = bad;
      EXPECT_THAT(
          QuantizeNf4(values, {13, 10}, Dtype::kF32),
          StatusIs(absl::StatusCode::kInvalidArgument,
                   AllOf(HasSubstr("[13, 10]"), HasSubstr("element " + std::to_string(element)))));
    }
  }
}

TEST(Nf4Test, EmptyTensorsAndOtherSourceDtypesAreRefused) {
  EXPECT_THAT(QuantizeNf4({}, {0, 4}, Dtype::kF32),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("[0, 4]")));
  const std::vector<float> one = {1.0f};
  EXPECT_THAT(QuantizeNf4(one, {1}, Dtype::kI8),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("I8")));
}

TEST(Nf4Test, OverflowingMeanOfBlockMaximaIsRefused) {
  const std::vector<float> values(4 * kBlock, 3e38f);
  EXPECT_THAT(QuantizeNf4(values, {4, kBlock}, Dtype::kF32, true),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("overflows")));
  EXPECT_THAT(QuantizeNf4(values, {4, kBlock}, Dtype::kF32, false), IsOk());
}

// What bitsandbytes made of tests/data/nf4/tensors.json.
class Nf4GoldenTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const char* root = std::getenv("PRICER_TEST_DATA");
    folder_ = std::string(root != nullptr ? root : PRICER_TEST_DATA) + "/nf4/";
    ASSERT_OK_AND_ASSIGN(file_, SafetensorsFile::Open(folder_ + "tensors.safetensors"));
    cases_ = Json("tensors.json")["cases"];
    ASSERT_FALSE(cases_.empty());
  }

  nlohmann::json Json(const std::string& name) const {
    return nlohmann::json::parse(*ReadFile(folder_ + name));
  }

  const TensorView* Find(const std::string& name) const {
    const auto found = file_->tensors().find(name);
    return found == file_->tensors().end() ? nullptr : &found->second;
  }

  std::vector<float> Floats(const std::string& name) const {
    const TensorView& view = *Find(name);
    const auto width = static_cast<size_t>(DtypeBytes(view.dtype));
    std::vector<float> values(view.element_count());
    for (size_t i = 0; i < values.size(); ++i) {
      uint32_t bits = 0;
      std::memcpy(&bits, view.data.data() + i * width, width);
      values[i] = Widen(bits, view.dtype);
    }
    return values;
  }

  std::string folder_;
  std::unique_ptr<SafetensorsFile> file_;
  nlohmann::json cases_;

 private:
  static float Widen(uint32_t bits, Dtype dtype) {
    if (dtype == Dtype::kF32) return std::bit_cast<float>(bits);
    if (dtype == Dtype::kBF16) return std::bit_cast<float>(bits << 16);
    const int exponent = static_cast<int>(bits >> 10 & 31);
    const int mantissa = static_cast<int>(bits & 1023);
    const float magnitude = exponent == 0
                                ? std::ldexp(static_cast<float>(mantissa), -24)
                                : std::ldexp(static_cast<float>(mantissa + 1024), exponent - 25);
    return (bits & 0x8000) != 0 ? -magnitude : magnitude;
  }
};

TEST_F(Nf4GoldenTest, TablesHaveTheReferencesBits) {
  const nlohmann::json numbers = Json("numbers.json");
  for (size_t i = 0; i < kNf4Levels.size(); ++i) {
    EXPECT_EQ(std::bit_cast<uint32_t>(kNf4Levels[i]), numbers["levels_bits"][i].get<uint32_t>());
  }
  for (size_t i = 0; i < kDynamicMap.size(); ++i) {
    EXPECT_EQ(std::bit_cast<uint32_t>(kDynamicMap[i]),
              numbers["dynamic_map_bits"][i].get<uint32_t>());
  }
}

TEST_F(Nf4GoldenTest, EveryCaseIsQuantizedToTheSameBytes) {
  int forms = 0;
  for (const nlohmann::json& entry : cases_) {
    const auto name = entry["name"].get<std::string>();
    const TensorView& input = *Find(name + ".input");
    for (const bool nested : {true, false}) {
      const std::string prefix = name + (nested ? ".nested.weight" : ".plain.weight");
      if (Find(prefix) == nullptr) continue;
      ++forms;
      ASSERT_OK_AND_ASSIGN(const Nf4Tensor tensor,
                           QuantizeNf4(Floats(name + ".input"), input.shape, input.dtype, nested));
      const Nf4Serialized serialized = SerializeNf4(tensor);
      EXPECT_EQ(serialized.parts.size(), nested ? 6u : 4u);
      for (const Nf4Serialized::Part& part : serialized.parts) {
        const TensorView* const expected = Find(prefix + part.suffix);
        ASSERT_NE(expected, nullptr) << prefix << part.suffix;
        EXPECT_EQ(part.view.ToString(), expected->ToString()) << prefix << part.suffix;
        EXPECT_TRUE(part.view.data == expected->data) << prefix << part.suffix;
      }
    }
  }
  EXPECT_GE(forms, 40);
}

TEST_F(Nf4GoldenTest, EveryCaseIsDecodedToTheSameValues) {
  int forms = 0;
  for (const nlohmann::json& entry : cases_) {
    for (const char* form : {".nested", ".plain"}) {
      const std::string prefix = entry["name"].get<std::string>() + form;
      if (Find(prefix + ".weight") == nullptr) continue;
      ASSERT_OK_AND_ASSIGN(
          const Nf4Tensor tensor,
          ParseNf4({.weight = Find(prefix + ".weight"),
                    .absmax = Find(prefix + ".weight.absmax"),
                    .quant_map = Find(prefix + ".weight.quant_map"),
                    .nested_absmax = Find(prefix + ".weight.nested_absmax"),
                    .nested_quant_map = Find(prefix + ".weight.nested_quant_map"),
                    .quant_state = Find(prefix + ".weight.quant_state.bitsandbytes__nf4")}));
      EXPECT_EQ(DecodeAbsmax(tensor), Floats(prefix + ".absmax")) << prefix;
      const TensorView* const decoded = Find(prefix + ".decoded");
      if (decoded == nullptr) continue;  // kept for the absmax alone
      ++forms;
      EXPECT_EQ(tensor.shape, decoded->shape) << prefix;
      EXPECT_EQ(Dequantize(tensor), Floats(prefix + ".decoded")) << prefix;
    }
  }
  EXPECT_GE(forms, 40);
}

}  // namespace
}  // namespace pricer
