#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "model/json_fields.h"
#include "model/nf4.h"

namespace pricer {
namespace {

// Without the dot.
constexpr absl::string_view kStateName = kNf4StateSuffix.substr(1);
constexpr int64_t kMaxStateBytes = 64 << 10;
// Other processors compute the dynamic map with other last bits; the absmax it gives stays within
// 1e-6.
constexpr float kMapTolerance = 2.5e-7f;

struct DtypeText {
  Dtype dtype;
  absl::string_view text;
};
constexpr std::array<DtypeText, 3> kSourceDtypes = {
    {{Dtype::kF32, "float32"}, {Dtype::kF16, "float16"}, {Dtype::kBF16, "bfloat16"}}};

absl::string_view SourceDtypeText(Dtype dtype) {
  for (const DtypeText& entry : kSourceDtypes) {
    if (entry.dtype == dtype) return entry.text;
  }
  return "float32";
}

// As Python's repr(): the shortest digits that give the value back, a point or an exponent always.
std::string PythonFloat(double value) {
  std::array<char, 32> buffer;
  const double magnitude = std::fabs(value);
  const bool fixed = value == 0.0 || (magnitude >= 1e-4 && magnitude < 1e16);
  const auto format = fixed ? std::chars_format::fixed : std::chars_format::scientific;
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value, format).ptr;
  std::string text(buffer.data(), end);
  if (fixed && text.find('.') == std::string::npos) text += ".0";
  return text;
}

// What Python's json.dumps makes of QuantState.as_dict(packed=True), to the byte.
std::string StateJson(const Nf4Tensor& tensor) {
  std::string json = absl::StrCat(R"({"quant_type": "nf4", "blocksize": )", kNf4BlockSize,
                                  R"(, "dtype": ")", SourceDtypeText(tensor.source_dtype),
                                  R"(", "shape": [)", absl::StrJoin(tensor.shape, ", "), "]");
  if (tensor.nested) {
    absl::StrAppend(&json, R"(, "nested_blocksize": )", kNf4NestedBlockSize,
                    R"(, "nested_dtype": "float32", "nested_offset": )",
                    PythonFloat(tensor.nested_offset));
  }
  return json + "}";
}

class PartWriter {
 public:
  // The views point into the strings, so those must not move.
  PartWriter() { result_.storage.reserve(kMostParts); }

  template <typename T>
  void Add(absl::string_view suffix, Dtype dtype, std::vector<int64_t> shape, const T* values) {
    const int64_t count = TensorView{dtype, shape, {}}.element_count();
    const auto* const bytes = reinterpret_cast<const char*>(values);
    result_.storage.emplace_back(bytes, count * sizeof(T));
    result_.parts.push_back(
        {std::string(suffix), TensorView{dtype, std::move(shape), result_.storage.back()}});
  }

  template <typename Values>
  void AddVector(absl::string_view suffix, Dtype dtype, const Values& values) {
    Add(suffix, dtype, {static_cast<int64_t>(values.size())}, values.data());
  }

  Nf4Serialized Take() && { return std::move(result_); }

 private:
  static constexpr size_t kMostParts = 6;
  Nf4Serialized result_;
};

absl::Status PartError(absl::string_view name, absl::string_view problem) {
  return absl::InvalidArgumentError(absl::StrCat("NF4 ", name, ": ", problem));
}

absl::Status CheckPart(absl::string_view name, const TensorView* part, const TensorView& expected) {
  if (part == nullptr) {
    return PartError(name, absl::StrCat("is missing; expected ", expected.ToString()));
  }
  const int64_t bytes = expected.element_count() * DtypeBytes(expected.dtype);
  if (part->dtype != expected.dtype || part->shape != expected.shape ||
      static_cast<int64_t>(part->data.size()) != bytes) {
    return PartError(name, absl::StrCat("expected ", expected.ToString(), ", got ",
                                        part->ToString(), " of ", part->data.size(), " bytes"));
  }
  return absl::OkStatus();
}

// The values of a checked part, which may lie unaligned.
template <typename T>
std::vector<T> ValuesOf(const TensorView& part) {
  std::vector<T> values(part.data.size() / sizeof(T));
  std::memcpy(values.data(), part.data.data(), values.size() * sizeof(T));
  return values;
}

template <size_t kSize>
absl::Status CheckMap(absl::string_view name, const TensorView* part,
                      const std::array<float, kSize>& map, float tolerance) {
  RETURN_IF_ERROR(CheckPart(name, part, {Dtype::kF32, {static_cast<int64_t>(kSize)}, {}}));
  const std::vector<float> values = ValuesOf<float>(*part);
  for (size_t i = 0; i < kSize; ++i) {
    if (std::fabs(values[i] - map[i]) <= tolerance * std::fabs(map[i])) continue;
    return PartError(name, absl::StrCat("entry ", i, " is ", PythonFloat(values[i]), ", expected ",
                                        PythonFloat(map[i])));
  }
  return absl::OkStatus();
}

absl::Status CheckFinite(absl::string_view name, const std::vector<float>& values) {
  for (size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i])) {
      return PartError(name, absl::StrCat("entry ", i, " is ", values[i], ", expected a number"));
    }
  }
  return absl::OkStatus();
}

// Packed bytes are stored under any dtype of theirs (bnb_4bit_quant_storage): [bytes / size, 1], to
// be reinterpreted.
absl::Status CheckWeight(const TensorView* part, int64_t bytes) {
  if (part == nullptr) return PartError("weight", "is missing");
  const bool storage = part->dtype == Dtype::kU8 || part->dtype == Dtype::kI8 ||
                       part->dtype == Dtype::kBF16 || part->dtype == Dtype::kF16 ||
                       part->dtype == Dtype::kF32;
  const int64_t size = storage ? DtypeBytes(part->dtype) : 1;
  if (!storage || part->shape != std::vector<int64_t>{bytes / size, 1} || bytes % size != 0 ||
      static_cast<int64_t>(part->data.size()) != bytes) {
    return PartError("weight",
                     absl::StrCat("expected U8 [", bytes, ", 1] or the same ", bytes,
                                  " bytes as I8, F32, F16 or BF16, got ", part->ToString()));
  }
  return absl::OkStatus();
}

absl::Status CheckField(const JsonFields& fields, absl::string_view name, int64_t expected) {
  int64_t value = 0;
  RETURN_IF_ERROR(fields.Require(name, &value));
  if (value == expected) return absl::OkStatus();
  return fields.Error(name, absl::StrCat("expected ", expected, ", got ", value));
}

absl::Status CheckField(const JsonFields& fields, absl::string_view name,
                        absl::string_view expected) {
  std::string value;
  RETURN_IF_ERROR(fields.Require(name, &value));
  if (value == expected) return absl::OkStatus();
  return fields.Error(name, absl::StrCat("expected '", expected, "', got ", Quoted(value)));
}

absl::Status ReadDtype(const JsonFields& fields, Nf4Tensor& tensor) {
  std::string text;
  RETURN_IF_ERROR(fields.Require("dtype", &text));
  for (const DtypeText& entry : kSourceDtypes) {
    if (entry.text != text) continue;
    tensor.source_dtype = entry.dtype;
    return absl::OkStatus();
  }
  return fields.Error("dtype",
                      absl::StrCat("expected float32, float16 or bfloat16, got ", Quoted(text)));
}

absl::Status ReadShape(const JsonFields& fields, Nf4Tensor& tensor) {
  RETURN_IF_ERROR(fields.Require("shape", &tensor.shape));
  int64_t count = tensor.shape.empty() ? 0 : 1;
  for (const int64_t extent : tensor.shape) {
    const bool fits =
        extent > 0 && extent <= std::numeric_limits<int32_t>::max() / std::max<int64_t>(count, 1);
    count = fits ? count * extent : 0;
    if (count == 0) break;
  }
  if (count > 0) return absl::OkStatus();
  return fields.Error("shape", absl::StrCat("expected 1 to 2^31 - 1 elements, got [",
                                            absl::StrJoin(tensor.shape, ", "), "]"));
}

absl::Status ReadNested(const JsonFields& fields, Nf4Tensor& tensor) {
  double offset = 0;
  RETURN_IF_ERROR(CheckField(fields, "nested_blocksize", kNf4NestedBlockSize));
  RETURN_IF_ERROR(CheckField(fields, "nested_dtype", "float32"));
  RETURN_IF_ERROR(fields.Require("nested_offset", &offset));
  tensor.nested_offset = static_cast<float>(offset);
  if (std::isfinite(tensor.nested_offset)) return absl::OkStatus();
  return fields.Error("nested_offset", absl::StrCat("does not fit fp32: ", offset));
}

absl::Status CheckFieldNames(const nlohmann::json& state, const JsonFields& fields) {
  static constexpr std::array<absl::string_view, 7> kNames = {
      "quant_type",       "blocksize",    "dtype",        "shape",
      "nested_blocksize", "nested_dtype", "nested_offset"};
  for (const auto& entry : state.items()) {
    if (std::find(kNames.begin(), kNames.end(), entry.key()) == kNames.end()) {
      return fields.Error(entry.key(), "is not known");
    }
  }
  return absl::OkStatus();
}

// What the JSON part says: shape, source dtype, and offset where nested.
absl::StatusOr<Nf4Tensor> ParseState(const TensorView* part) {
  if (part == nullptr) return PartError(kStateName, "is missing");
  const auto bytes = static_cast<int64_t>(part->data.size());
  RETURN_IF_ERROR(CheckPart(kStateName, part, {Dtype::kU8, {bytes}, {}}));
  if (bytes > kMaxStateBytes) {
    return PartError(kStateName,
                     absl::StrCat("expected at most ", kMaxStateBytes, " bytes, got ", bytes));
  }
  const std::string source = absl::StrCat("NF4 ", kStateName);
  ASSIGN_OR_RETURN(const nlohmann::json state, ParseJson(part->data, source));
  ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Create(state, source));
  RETURN_IF_ERROR(CheckFieldNames(state, fields));
  RETURN_IF_ERROR(CheckField(fields, "quant_type", "nf4"));
  RETURN_IF_ERROR(CheckField(fields, "blocksize", kNf4BlockSize));
  Nf4Tensor tensor;
  RETURN_IF_ERROR(ReadDtype(fields, tensor));
  RETURN_IF_ERROR(ReadShape(fields, tensor));
  tensor.nested =
      fields.Has("nested_blocksize") || fields.Has("nested_dtype") || fields.Has("nested_offset");
  if (tensor.nested) RETURN_IF_ERROR(ReadNested(fields, tensor));
  return tensor;
}

absl::Status CheckAbsmax(const Nf4Parts& parts, bool nested, int64_t blocks) {
  RETURN_IF_ERROR(
      CheckPart("absmax", parts.absmax, {nested ? Dtype::kU8 : Dtype::kF32, {blocks}, {}}));
  if (nested) {
    const int64_t nested_blocks = (blocks + kNf4NestedBlockSize - 1) / kNf4NestedBlockSize;
    RETURN_IF_ERROR(
        CheckPart("nested_absmax", parts.nested_absmax, {Dtype::kF32, {nested_blocks}, {}}));
    return CheckMap("nested_quant_map", parts.nested_quant_map, kDynamicMap, kMapTolerance);
  }
  if (parts.nested_absmax == nullptr && parts.nested_quant_map == nullptr) return absl::OkStatus();
  return PartError(parts.nested_absmax != nullptr ? "nested_absmax" : "nested_quant_map",
                   absl::StrCat("is there, but ", kStateName, " has no nested fields"));
}

}  // namespace

Nf4Serialized SerializeNf4(const Nf4Tensor& tensor) {
  PartWriter writer;
  const auto packed_bytes = static_cast<int64_t>(tensor.packed.size());
  writer.Add("", Dtype::kU8, {packed_bytes, 1}, tensor.packed.data());
  if (tensor.nested) {
    writer.AddVector(".absmax", Dtype::kU8, tensor.absmax_codes);
    writer.AddVector(".nested_absmax", Dtype::kF32, tensor.nested_absmax);
    writer.AddVector(".nested_quant_map", Dtype::kF32, kDynamicMap);
  } else {
    writer.AddVector(".absmax", Dtype::kF32, tensor.absmax);
  }
  writer.AddVector(".quant_map", Dtype::kF32, kNf4Levels);
  writer.AddVector(kNf4StateSuffix, Dtype::kU8, StateJson(tensor));
  return std::move(writer).Take();
}

Nf4Parts FindNf4Parts(absl::FunctionRef<const TensorView*(absl::string_view suffix)> find) {
  return {.weight = find(""),
          .absmax = find(".absmax"),
          .quant_map = find(".quant_map"),
          .nested_absmax = find(".nested_absmax"),
          .nested_quant_map = find(".nested_quant_map"),
          .quant_state = find(kNf4StateSuffix)};
}

absl::StatusOr<Nf4Tensor> CheckNf4(const Nf4Parts& parts) {
  ASSIGN_OR_RETURN(Nf4Tensor tensor, ParseState(parts.quant_state));
  const int64_t count = tensor.element_count();
  RETURN_IF_ERROR(CheckWeight(parts.weight, (count + 1) / 2));
  RETURN_IF_ERROR(CheckMap("quant_map", parts.quant_map, kNf4Levels, 0.0f));
  RETURN_IF_ERROR(CheckAbsmax(parts, tensor.nested, (count + kNf4BlockSize - 1) / kNf4BlockSize));
  return tensor;
}

absl::StatusOr<Nf4Tensor> ParseNf4(const Nf4Parts& parts) {
  ASSIGN_OR_RETURN(Nf4Tensor tensor, CheckNf4(parts));
  tensor.packed = ValuesOf<uint8_t>(*parts.weight);
  if (!tensor.nested) {
    tensor.absmax = ValuesOf<float>(*parts.absmax);
    RETURN_IF_ERROR(CheckFinite("absmax", tensor.absmax));
    return tensor;
  }
  tensor.absmax_codes = ValuesOf<uint8_t>(*parts.absmax);
  tensor.nested_absmax = ValuesOf<float>(*parts.nested_absmax);
  RETURN_IF_ERROR(CheckFinite("nested_absmax", tensor.nested_absmax));
  return tensor;
}

}  // namespace pricer
