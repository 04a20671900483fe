#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/nf4.h"
#include "tests/testing/status_matchers.h"

namespace pricer {
namespace {

using ::pricer::testing::IsOk;
using ::pricer::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kState[] = ".quant_state.bitsandbytes__nf4";

Nf4Tensor Quantize(const std::vector<float>& values, std::vector<int64_t> shape,
                   Dtype dtype = Dtype::kF32, bool nested = true) {
  auto tensor = QuantizeNf4(values, std::move(shape), dtype, nested);
  EXPECT_THAT(tensor, IsOk());
  return *std::move(tensor);
}

// 259 blocks of different maxima.
Nf4Tensor Example(bool nested = true) {
  std::vector<float> values(259 * 64);
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<float>(static_cast<int>(i * 37 % 1009) - 504) / 64.0f;
  }
  return Quantize(values, {259, 64}, Dtype::kBF16, nested);
}

const TensorView* Find(const Nf4Serialized& serialized, absl::string_view suffix) {
  for (const Nf4Serialized::Part& part : serialized.parts) {
    if (part.suffix == suffix) return &part.view;
  }
  return nullptr;
}

Nf4Parts PartsOf(const Nf4Serialized& serialized) {
  return {.weight = Find(serialized, ""),
          .absmax = Find(serialized, ".absmax"),
          .quant_map = Find(serialized, ".quant_map"),
          .nested_absmax = Find(serialized, ".nested_absmax"),
          .nested_quant_map = Find(serialized, ".nested_quant_map"),
          .quant_state = Find(serialized, kState)};
}

std::string StateOf(const Nf4Tensor& tensor) {
  return std::string(Find(SerializeNf4(tensor), kState)->data);
}

std::vector<std::string> Described(const Nf4Serialized& serialized) {
  std::vector<std::string> lines;
  for (const Nf4Serialized::Part& part : serialized.parts) {
    lines.push_back(part.suffix + " " + part.view.ToString());
  }
  return lines;
}

TEST(Nf4SerializationTest, NestedTensorHasSixParts) {
  EXPECT_THAT(Described(SerializeNf4(Example())),
              ElementsAre(" U8 [8288, 1]", ".absmax U8 [259]", ".nested_absmax F32 [2]",
                          ".nested_quant_map F32 [256]", ".quant_map F32 [16]",
                          HasSubstr(".quant_state.bitsandbytes__nf4 U8 [")));
}

TEST(Nf4SerializationTest, PlainTensorHasFourParts) {
  EXPECT_THAT(Described(SerializeNf4(Example(false))),
              ElementsAre(" U8 [8288, 1]", ".absmax F32 [259]", ".quant_map F32 [16]",
                          HasSubstr(".quant_state.bitsandbytes__nf4 U8 [")));
}

TEST(Nf4SerializationTest, StateIsPythonsJsonToTheByte) {
  std::vector<float> values(150);
  for (int i = 0; i < 150; ++i) values[i] = static_cast<float>(i * 37 % 101 - 50) / 64.0f;
  EXPECT_EQ(StateOf(Quantize(values, {3, 50})),
            R"({"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": [3, 50], )"
            R"("nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.78125})");
  EXPECT_EQ(StateOf(Quantize(values, {150}, Dtype::kBF16, false)),
            R"({"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [150]})");
  EXPECT_EQ(StateOf(Quantize(values, {5, 30, 1}, Dtype::kF16, false)),
            R"({"quant_type": "nf4", "blocksize": 64, "dtype": "float16", "shape": [5, 30, 1]})");
}

// Expected texts are those of Python's repr().
TEST(Nf4SerializationTest, OffsetIsWrittenAsPythonWritesFloats) {
  const std::vector<std::pair<float, std::string>> cases = {{0.0f, "0.0"},
                                                            {1.0f, "1.0"},
                                                            {0x1p-20f, "9.5367431640625e-07"},
                                                            {1e-4f, "9.999999747378752e-05"},
                                                            {0x1p-13f, "0.0001220703125"},
                                                            {123456.789f, "123456.7890625"},
                                                            {0x1p53f, "9007199254740992.0"},
                                                            {3.0e16f, "3.000000081769267e+16"},
                                                            {0x1p60f, "1.152921504606847e+18"},
                                                            {1e22f, "9.999999778196308e+21"}};
  for (const auto& [value, text] : cases) {
    const Nf4Tensor tensor = Quantize(std::vector<float>(64, value), {64});
    EXPECT_THAT(StateOf(tensor), HasSubstr("\"nested_offset\": " + text + "}"));
  }
}

TEST(Nf4SerializationTest, ParsedPartsAreTheTensor) {
  for (const bool nested : {true, false}) {
    const Nf4Tensor tensor = Example(nested);
    Nf4Serialized serialized = SerializeNf4(tensor);
    const Nf4Serialized moved = std::move(serialized);
    ASSERT_OK_AND_ASSIGN(const Nf4Tensor parsed, ParseNf4(PartsOf(moved)));
    EXPECT_EQ(parsed.shape, tensor.shape);
    EXPECT_EQ(parsed.source_dtype, Dtype::kBF16);
    EXPECT_EQ(parsed.nested, nested);
    EXPECT_EQ(parsed.packed, tensor.packed);
    EXPECT_EQ(parsed.absmax_codes, tensor.absmax_codes);
    EXPECT_EQ(parsed.nested_absmax, tensor.nested_absmax);
    EXPECT_EQ(parsed.nested_offset, tensor.nested_offset);
    EXPECT_EQ(parsed.absmax, tensor.absmax);
  }
}

TEST(Nf4SerializationTest, PartsOfOneValueSurviveAMove) {
  Nf4Serialized serialized = SerializeNf4(Quantize({-2.5f}, {1, 1}));
  const Nf4Serialized moved = std::move(serialized);
  ASSERT_OK_AND_ASSIGN(const Nf4Tensor parsed, ParseNf4(PartsOf(moved)));
  EXPECT_THAT(DecodeAbsmax(parsed), ElementsAre(2.5f));
}

TEST(Nf4SerializationTest, WeightStoredUnderAnotherDtypeIsReinterpreted) {
  const Nf4Tensor tensor = Example();
  const Nf4Serialized serialized = SerializeNf4(tensor);
  for (const Dtype storage : {Dtype::kI8, Dtype::kBF16, Dtype::kF16, Dtype::kF32}) {
    Nf4Parts parts = PartsOf(serialized);
    const TensorView weight{storage, {8288 / DtypeBytes(storage), 1}, parts.weight->data};
    parts.weight = &weight;
    ASSERT_OK_AND_ASSIGN(const Nf4Tensor parsed, ParseNf4(parts));
    EXPECT_EQ(parsed.packed, tensor.packed);
  }
}

TEST(Nf4SerializationTest, UnalignedPartsAreRead) {
  const Nf4Tensor tensor = Example();
  const Nf4Serialized serialized = SerializeNf4(tensor);
  Nf4Parts parts = PartsOf(serialized);
  const std::string shifted = absl::StrCat("x", parts.nested_absmax->data);
  TensorView view = *parts.nested_absmax;
  view.data = absl::string_view(shifted).substr(1);
  parts.nested_absmax = &view;
  ASSERT_OK_AND_ASSIGN(const Nf4Tensor parsed, ParseNf4(parts));
  EXPECT_EQ(parsed.nested_absmax, tensor.nested_absmax);
}

// A file of another processor: its map differs in the last bit.
TEST(Nf4SerializationTest, NestedMapMayDifferInTheLastBit) {
  const Nf4Serialized serialized = SerializeNf4(Example());
  Nf4Parts parts = PartsOf(serialized);
  std::array<float, 256> map = kDynamicMap;
  for (float& value : map) value = std::nextafter(value, 0.0f);
  TensorView view = *parts.nested_quant_map;
  view.data = {reinterpret_cast<const char*>(map.data()), sizeof(map)};
  parts.nested_quant_map = &view;
  EXPECT_THAT(ParseNf4(parts), IsOk());
}

// Serialized parts, to be broken one at a time.
struct Breakable {
  Nf4Serialized serialized;
  TensorView weight, absmax, quant_map, nested_absmax, nested_quant_map, state;
  Nf4Parts parts;
  std::string bytes;  // for a change of data

  explicit Breakable(bool nested = true) : serialized(SerializeNf4(Example(nested))) {
    const Nf4Parts whole = PartsOf(serialized);
    parts.weight = Keep(whole.weight, weight);
    parts.absmax = Keep(whole.absmax, absmax);
    parts.quant_map = Keep(whole.quant_map, quant_map);
    parts.nested_absmax = Keep(whole.nested_absmax, nested_absmax);
    parts.nested_quant_map = Keep(whole.nested_quant_map, nested_quant_map);
    parts.quant_state = Keep(whole.quant_state, state);
  }

  static const TensorView* Keep(const TensorView* from, TensorView& to) {
    if (from == nullptr) return nullptr;
    to = *from;
    return &to;
  }

  void SetFloat(TensorView& view, size_t index, float value) {
    bytes = std::string(view.data);
    const auto raw = std::bit_cast<std::array<char, 4>>(value);
    bytes.replace(index * 4, 4, raw.data(), 4);
    view.data = bytes;
  }

  void ReplaceInState(absl::string_view from, absl::string_view to) {
    bytes = std::string(state.data);
    const size_t at = bytes.find(std::string(from));
    ASSERT_NE(at, std::string::npos) << from;
    bytes.replace(at, from.size(), to.data(), to.size());
    state.data = bytes;
    state.shape = {static_cast<int64_t>(bytes.size())};
  }
};

struct Refusal {
  std::string name;
  bool nested;
  std::function<void(Breakable&)> damage;
  std::vector<std::string> words;
};

std::vector<Refusal> BrokenParts() {
  const auto state = [](const std::string& from, const std::string& to) {
    return [from, to](Breakable& b) { b.ReplaceInState(from, to); };
  };
  const float nan = std::numeric_limits<float>::quiet_NaN();
  return {
      {"no weight", true, [](Breakable& b) { b.parts.weight = nullptr; }, {"weight", "missing"}},
      {"no absmax", true, [](Breakable& b) { b.parts.absmax = nullptr; }, {"absmax", "missing"}},
      {"no map", true, [](Breakable& b) { b.parts.quant_map = nullptr; }, {"quant_map", "missing"}},
      {"no state", true, [](Breakable& b) { b.parts.quant_state = nullptr; }, {"quant_state"}},
      {"no nested absmax",
       true,
       [](Breakable& b) { b.parts.nested_absmax = nullptr; },
       {"nested_absmax", "missing"}},
      {"no nested map",
       true,
       [](Breakable& b) { b.parts.nested_quant_map = nullptr; },
       {"nested_quant_map", "missing"}},
      {"nested part of a plain tensor",
       false,
       [](Breakable& b) { b.parts.nested_absmax = &b.absmax; },
       {"nested_absmax", "no nested"}},
      {"another map",
       true,
       [](Breakable& b) { b.SetFloat(b.quant_map, 3, -0.4f); },
       {"quant_map", "entry 3", "-0.39491748"}},
      {"NaN in the map",
       true,
       [nan](Breakable& b) { b.SetFloat(b.quant_map, 3, nan); },
       {"quant_map", "entry 3"}},
      {"another nested map",
       true,
       [](Breakable& b) { b.SetFloat(b.nested_quant_map, 0, -1.0f); },
       {"nested_quant_map", "entry 0", "-0.99296"}},
      {"infinite nested absmax",
       true,
       [](Breakable& b) { b.SetFloat(b.nested_absmax, 1, HUGE_VALF); },
       {"nested_absmax", "inf"}},
      {"NaN absmax",
       false,
       [nan](Breakable& b) { b.SetFloat(b.absmax, 258, nan); },
       {"absmax", "entry 258", "nan"}},
      {"weight of another shape",
       true,
       [](Breakable& b) {
         b.weight.shape = {1, 8288};
       },
       {"weight", "[8288, 1]", "[1, 8288]"}},
      {"weight of another dtype",
       true,
       [](Breakable& b) { b.weight.dtype = Dtype::kBool; },
       {"weight", "BOOL [8288, 1]"}},
      {"short absmax",
       true,
       [](Breakable& b) {
         b.absmax.shape = {258};
         b.absmax.data.remove_suffix(1);
       },
       {"absmax", "U8 [259]", "U8 [258]"}},
      {"fp32 absmax where nested",
       true,
       [](Breakable& b) { b.absmax.dtype = Dtype::kF32; },
       {"absmax", "U8 [259]", "F32 [259]"}},
      {"fewer bytes than the shape says",
       true,
       [](Breakable& b) { b.nested_absmax.data.remove_suffix(4); },
       {"nested_absmax", "4 bytes"}},
      {"state that is no JSON", true, state("{", "<"), {"quant_state"}},
      {"fp4", true, state("nf4", "fp4"), {"quant_type", "nf4", "fp4"}},
      {"another block size", true, state("64", "128"), {"blocksize", "64", "128"}},
      {"another nested block size",
       true,
       state("\"nested_blocksize\": 256", "\"nested_blocksize\": 64"),
       {"nested_blocksize", "256", "64"}},
      {"another nested dtype",
       true,
       state("\"nested_dtype\": \"float32\"", "\"nested_dtype\": \"float16\""),
       {"nested_dtype", "float16"}},
      {"another source dtype", true, state("bfloat16", "float64"), {"dtype", "float64"}},
      {"shape of another size", true, state("[259, 64]", "[259, 65]"), {"weight", "8418"}},
      {"zero extent", true, state("[259, 64]", "[0, 64]"), {"shape", "[0, 64]"}},
      {"negative extents", true, state("[259, 64]", "[-259, -64]"), {"shape", "-259"}},
      {"overflowing shape", true, state("[259, 64]", "[4294967296, 4294967296]"), {"shape"}},
      {"no shape", true, state("\"shape\": [259, 64], ", ""), {"shape"}},
      {"unknown field", true, state("\"blocksize\"", "\"double\": 1, \"blocksize\""), {"double"}},
      {"half of the nested fields",
       true,
       state("\"nested_blocksize\": 256, ", ""),
       {"nested_blocksize"}},
  };
}

TEST(Nf4SerializationTest, BrokenPartsAreRefusedByName) {
  for (const Refusal& refusal : BrokenParts()) {
    Breakable broken(refusal.nested);
    ASSERT_OK(ParseNf4(broken.parts));
    refusal.damage(broken);
    const auto parsed = ParseNf4(broken.parts);
    EXPECT_THAT(parsed, StatusIs(absl::StatusCode::kInvalidArgument)) << refusal.name;
    for (const std::string& word : refusal.words) {
      EXPECT_THAT(std::string(parsed.status().message()), HasSubstr(word)) << refusal.name;
    }
  }
}

TEST(Nf4SerializationTest, OffsetThatIsNoFp32NumberIsRefused) {
  for (const char* offset : {"true", "null", "\"1\"", "1e300"}) {
    Breakable broken;
    const size_t at = broken.state.data.find("\"nested_offset\": ") + 17;
    const std::string old(broken.state.data.substr(at, broken.state.data.size() - at - 1));
    broken.ReplaceInState(old, offset);
    EXPECT_THAT(ParseNf4(broken.parts),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("nested_offset")))
        << offset;
  }
}

}  // namespace
}  // namespace pricer
