#include "model/gguf.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/gguf_types.h"
#include "model/json_fields.h"

namespace pricer {
namespace {

constexpr uint64_t kDefaultAlignment = 32;
constexpr uint32_t kMaxDimensions = 4;

// The format's numbers of value types.
enum class ValueType : uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
};

// Reads the file from front to back. Every error names file and place.
class Cursor {
 public:
  Cursor(absl::string_view bytes, const std::string& path) : bytes_(bytes), path_(path) {}

  uint64_t position() const { return position_; }
  uint64_t remaining() const { return bytes_.size() - position_; }
  // What is being read, for messages.
  void set_place(std::string place) { place_ = std::move(place); }

  absl::Status Corrupt(absl::string_view problem) const {
    return absl::DataLossError(absl::StrCat(path_, ": ", place_, ": ", problem));
  }

  template <typename T>
  absl::StatusOr<T> Read() {
    if (remaining() < sizeof(T)) return Truncated(sizeof(T));
    T value;
    std::memcpy(&value, bytes_.data() + position_, sizeof(T));
    position_ += sizeof(T);
    return value;
  }

  absl::StatusOr<absl::string_view> ReadBytes(uint64_t count) {
    if (count > remaining()) return Truncated(count);
    const absl::string_view bytes = bytes_.substr(position_, count);
    position_ += count;
    return bytes;
  }

  absl::StatusOr<std::string> ReadString() {
    ASSIGN_OR_RETURN(const uint64_t size, Read<uint64_t>());
    ASSIGN_OR_RETURN(const absl::string_view bytes, ReadBytes(size));
    return std::string(bytes);
  }

 private:
  absl::Status Truncated(uint64_t wanted) const {
    return Corrupt(absl::StrCat("truncated: expected ", wanted, " bytes at ", position_, ", got ",
                                remaining()));
  }

  absl::string_view bytes_;
  const std::string& path_;
  uint64_t position_ = 0;
  std::string place_ = "header";
};

// A number as the widest type of its kind.
template <typename T>
auto Widened(T value) {
  if constexpr (std::is_floating_point_v<T>) {
    return static_cast<double>(value);
  } else if constexpr (std::is_signed_v<T>) {
    return static_cast<int64_t>(value);
  } else {
    return static_cast<uint64_t>(value);
  }
}

template <typename T>
absl::StatusOr<GgufValue> ReadNumber(Cursor& cursor) {
  ASSIGN_OR_RETURN(const T value, cursor.Read<T>());
  return GgufValue(Widened(value));
}

absl::StatusOr<GgufValue> ReadBool(Cursor& cursor) {
  ASSIGN_OR_RETURN(const uint8_t value, cursor.Read<uint8_t>());
  if (value > 1) return cursor.Corrupt(absl::StrCat("expected a bool of 0 or 1, got ", value));
  return GgufValue(value == 1);
}

template <typename T>
absl::StatusOr<GgufValue> ReadNumbers(Cursor& cursor, uint64_t count) {
  if (count > cursor.remaining() / sizeof(T)) {
    return cursor.Corrupt(absl::StrCat("truncated: expected an array of ", count, " times ",
                                       sizeof(T), " bytes, got ", cursor.remaining(), " bytes"));
  }
  using Element = std::conditional_t<std::is_floating_point_v<T>, double, int64_t>;
  std::vector<Element> values;
  values.reserve(count);
  for (uint64_t i = 0; i < count; ++i) {
    ASSIGN_OR_RETURN(const T value, cursor.Read<T>());
    if constexpr (std::is_same_v<T, uint64_t>) {
      if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
        return cursor.Corrupt(absl::StrCat("expected integers below 2^63, got ", value));
      }
    }
    values.push_back(static_cast<Element>(value));
  }
  return GgufValue(std::move(values));
}

absl::StatusOr<GgufValue> ReadStrings(Cursor& cursor, uint64_t count) {
  if (count > cursor.remaining() / sizeof(uint64_t)) {
    return cursor.Corrupt(absl::StrCat("truncated: expected an array of ", count, " strings, got ",
                                       cursor.remaining(), " bytes"));
  }
  std::vector<std::string> values;
  values.reserve(count);
  for (uint64_t i = 0; i < count; ++i) {
    ASSIGN_OR_RETURN(std::string value, cursor.ReadString());
    values.push_back(std::move(value));
  }
  return GgufValue(std::move(values));
}

absl::StatusOr<GgufValue> ReadArray(Cursor& cursor) {
  ASSIGN_OR_RETURN(const uint32_t type, cursor.Read<uint32_t>());
  ASSIGN_OR_RETURN(const uint64_t count, cursor.Read<uint64_t>());
  switch (static_cast<ValueType>(type)) {
    case ValueType::kU8:
    case ValueType::kBool:
      return ReadNumbers<uint8_t>(cursor, count);
    case ValueType::kI8:
      return ReadNumbers<int8_t>(cursor, count);
    case ValueType::kU16:
      return ReadNumbers<uint16_t>(cursor, count);
    case ValueType::kI16:
      return ReadNumbers<int16_t>(cursor, count);
    case ValueType::kU32:
      return ReadNumbers<uint32_t>(cursor, count);
    case ValueType::kI32:
      return ReadNumbers<int32_t>(cursor, count);
    case ValueType::kF32:
      return ReadNumbers<float>(cursor, count);
    case ValueType::kU64:
      return ReadNumbers<uint64_t>(cursor, count);
    case ValueType::kI64:
      return ReadNumbers<int64_t>(cursor, count);
    case ValueType::kF64:
      return ReadNumbers<double>(cursor, count);
    case ValueType::kString:
      return ReadStrings(cursor, count);
    case ValueType::kArray:
      break;
  }
  return cursor.Corrupt(absl::StrCat("expected an array of numbers or strings, got type ", type));
}

absl::StatusOr<GgufValue> ReadValue(Cursor& cursor) {
  ASSIGN_OR_RETURN(const uint32_t type, cursor.Read<uint32_t>());
  switch (static_cast<ValueType>(type)) {
    case ValueType::kU8:
      return ReadNumber<uint8_t>(cursor);
    case ValueType::kI8:
      return ReadNumber<int8_t>(cursor);
    case ValueType::kU16:
      return ReadNumber<uint16_t>(cursor);
    case ValueType::kI16:
      return ReadNumber<int16_t>(cursor);
    case ValueType::kU32:
      return ReadNumber<uint32_t>(cursor);
    case ValueType::kI32:
      return ReadNumber<int32_t>(cursor);
    case ValueType::kF32:
      return ReadNumber<float>(cursor);
    case ValueType::kBool:
      return ReadBool(cursor);
    case ValueType::kString: {
      ASSIGN_OR_RETURN(std::string value, cursor.ReadString());
      return GgufValue(std::move(value));
    }
    case ValueType::kArray:
      return ReadArray(cursor);
    case ValueType::kU64:
      return ReadNumber<uint64_t>(cursor);
    case ValueType::kI64:
      return ReadNumber<int64_t>(cursor);
    case ValueType::kF64:
      return ReadNumber<double>(cursor);
  }
  return cursor.Corrupt(absl::StrCat("expected a value type of 0 to 12, got ", type));
}

using ValueMap = std::map<std::string, GgufValue, std::less<>>;

absl::StatusOr<ValueMap> ReadValues(Cursor& cursor, uint64_t count) {
  ValueMap values;
  for (uint64_t i = 0; i < count; ++i) {
    cursor.set_place(absl::StrCat("key number ", i));
    ASSIGN_OR_RETURN(std::string key, cursor.ReadString());
    cursor.set_place(absl::StrCat("key ", Quoted(key)));
    ASSIGN_OR_RETURN(GgufValue value, ReadValue(cursor));
    if (!values.emplace(std::move(key), std::move(value)).second) {
      return cursor.Corrupt("it is there twice");
    }
  }
  return values;
}

// A tensor as the table of the file describes it.
struct TensorEntry {
  std::string name;
  std::vector<int64_t> shape;  // outermost first
  GgmlType type = GgmlType::kF32;
  uint64_t offset = 0;  // from the start of the data
  uint64_t bytes = 0;
};

absl::Status ReadShape(Cursor& cursor, std::vector<int64_t>* shape) {
  ASSIGN_OR_RETURN(const uint32_t dimensions, cursor.Read<uint32_t>());
  if (dimensions < 1 || dimensions > kMaxDimensions) {
    return cursor.Corrupt(absl::StrCat("expected 1 to 4 dimensions, got ", dimensions));
  }
  int64_t count = 1;
  for (uint32_t i = 0; i < dimensions; ++i) {
    ASSIGN_OR_RETURN(const int64_t extent, cursor.Read<int64_t>());
    if (extent < 1) return cursor.Corrupt(absl::StrCat("expected extents >= 1, got ", extent));
    if (__builtin_mul_overflow(count, extent, &count)) return cursor.Corrupt("shape overflows");
    shape->insert(shape->begin(), extent);
  }
  return absl::OkStatus();
}

absl::Status ReadType(Cursor& cursor, const std::string& path, TensorEntry* entry) {
  ASSIGN_OR_RETURN(const uint32_t type, cursor.Read<uint32_t>());
  const GgmlUnit unit = GgmlUnitOf(type);
  if (unit.values == 0) {
    return absl::UnimplementedError(
        absl::StrCat(path, ": tensor ", Quoted(entry->name), ": type ", GgmlTypeName(type), " (",
                     type, ") is not supported; expected F32, F16, BF16, Q8_0, Q4_0 or Q4_1"));
  }
  if (entry->shape.back() % unit.values != 0) {
    return cursor.Corrupt(absl::StrCat("expected rows of a multiple of ", unit.values,
                                       " values for type ", GgmlTypeName(type), ", got ",
                                       entry->shape.back()));
  }
  std::vector<int64_t> units = entry->shape;
  units.back() /= unit.values;
  int64_t bytes = unit.bytes;
  for (const int64_t extent : units) {
    if (__builtin_mul_overflow(bytes, extent, &bytes)) return cursor.Corrupt("size overflows");
  }
  entry->type = static_cast<GgmlType>(type);
  entry->bytes = bytes;
  return absl::OkStatus();
}

absl::StatusOr<std::vector<TensorEntry>> ReadTable(Cursor& cursor, const std::string& path,
                                                   uint64_t count) {
  std::vector<TensorEntry> entries;
  for (uint64_t i = 0; i < count; ++i) {
    TensorEntry entry;
    cursor.set_place(absl::StrCat("tensor number ", i));
    ASSIGN_OR_RETURN(entry.name, cursor.ReadString());
    cursor.set_place(absl::StrCat("tensor ", Quoted(entry.name)));
    RETURN_IF_ERROR(ReadShape(cursor, &entry.shape));
    RETURN_IF_ERROR(ReadType(cursor, path, &entry));
    ASSIGN_OR_RETURN(entry.offset, cursor.Read<uint64_t>());
    entries.push_back(std::move(entry));
  }
  return entries;
}

absl::StatusOr<uint64_t> Alignment(const ValueMap& values, const std::string& path) {
  const auto found = values.find("general.alignment");
  if (found == values.end()) return kDefaultAlignment;
  const uint64_t* alignment = std::get_if<uint64_t>(&found->second);
  if (alignment == nullptr || *alignment == 0 || (*alignment & (*alignment - 1)) != 0 ||
      *alignment > 1 << 20) {
    return absl::DataLossError(
        absl::StrCat(path, ": key 'general.alignment': expected a power of two of at most 2^20"));
  }
  return *alignment;
}

// Checks that the tensors lie inside `data_bytes`, aligned and without overlap. Sorts them by
// place.
absl::Status CheckPlaces(const std::string& path, uint64_t data_bytes, uint64_t alignment,
                         std::vector<TensorEntry>* entries) {
  std::sort(entries->begin(), entries->end(),
            [](const auto& a, const auto& b) { return a.offset < b.offset; });
  const TensorEntry* previous = nullptr;
  for (const TensorEntry& entry : *entries) {
    const auto corrupt = [&](absl::string_view problem) {
      return absl::DataLossError(
          absl::StrCat(path, ": tensor ", Quoted(entry.name), ": ", problem));
    };
    if (entry.offset % alignment != 0) {
      return corrupt(
          absl::StrCat("expected data at a multiple of ", alignment, " bytes, got ", entry.offset));
    }
    if (entry.bytes > data_bytes || entry.offset > data_bytes - entry.bytes) {
      return corrupt(absl::StrCat("truncated: expected ", entry.bytes, " bytes at ", entry.offset,
                                  " of the data, which has ", data_bytes));
    }
    if (previous != nullptr && entry.offset < previous->offset + previous->bytes) {
      return corrupt(absl::StrCat("overlaps tensor ", Quoted(previous->name)));
    }
    previous = &entry;
  }
  return absl::OkStatus();
}

}  // namespace

int64_t GgufTensor::element_count() const {
  int64_t count = 1;
  for (const int64_t extent : shape) count *= extent;
  return count;
}

absl::StatusOr<std::unique_ptr<GgufFile>> GgufFile::Open(const std::string& path) {
  ASSIGN_OR_RETURN(MappedFile mapped, MappedFile::Open(path));
  std::unique_ptr<GgufFile> file(new GgufFile(std::move(mapped)));
  RETURN_IF_ERROR(file->Parse());
  return file;
}

absl::Status GgufFile::Parse() {
  Cursor cursor(file_.bytes(), path());
  ASSIGN_OR_RETURN(const absl::string_view magic, cursor.ReadBytes(4));
  if (magic != "GGUF") {
    return cursor.Corrupt(absl::StrCat("expected the magic GGUF, got ", Quoted(magic)));
  }
  ASSIGN_OR_RETURN(const uint32_t version, cursor.Read<uint32_t>());
  if (version != 2 && version != 3) {
    return absl::UnimplementedError(
        absl::StrCat(path(), ": GGUF version ", version, " is not supported; expected 2 or 3"));
  }
  ASSIGN_OR_RETURN(const uint64_t tensor_count, cursor.Read<uint64_t>());
  ASSIGN_OR_RETURN(const uint64_t value_count, cursor.Read<uint64_t>());
  ASSIGN_OR_RETURN(values_, ReadValues(cursor, value_count));
  ASSIGN_OR_RETURN(std::vector<TensorEntry> entries, ReadTable(cursor, path(), tensor_count));
  ASSIGN_OR_RETURN(const uint64_t alignment, Alignment(values_, path()));

  // A file without tensors may end without padding.
  const uint64_t size = file_.bytes().size();
  const uint64_t start = std::min(size, (cursor.position() + alignment - 1) & ~(alignment - 1));
  const absl::string_view data = file_.bytes().substr(start);
  RETURN_IF_ERROR(CheckPlaces(path(), data.size(), alignment, &entries));
  for (TensorEntry& entry : entries) {
    const absl::string_view bytes = data.substr(entry.offset, entry.bytes);
    cursor.set_place(absl::StrCat("tensor ", Quoted(entry.name)));
    if (!tensors_
             .emplace(std::move(entry.name), GgufTensor{entry.type, std::move(entry.shape), bytes})
             .second) {
      return cursor.Corrupt("it is there twice");
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<const GgufValue*> GgufFile::Find(absl::string_view key) const {
  const auto found = values_.find(key);
  if (found != values_.end()) return &found->second;
  return absl::NotFoundError(absl::StrCat(path(), ": key ", Quoted(key), " is missing"));
}

absl::Status GgufFile::WrongKind(absl::string_view key, absl::string_view expected) const {
  return absl::InvalidArgumentError(
      absl::StrCat(path(), ": key ", Quoted(key), ": expected ", expected));
}

absl::StatusOr<int64_t> GgufFile::Integer(absl::string_view key) const {
  ASSIGN_OR_RETURN(const GgufValue* value, Find(key));
  if (const int64_t* integer = std::get_if<int64_t>(value)) return *integer;
  const uint64_t* integer = std::get_if<uint64_t>(value);
  if (integer == nullptr || *integer > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    return WrongKind(key, "an integer below 2^63");
  }
  return static_cast<int64_t>(*integer);
}

absl::StatusOr<double> GgufFile::Real(absl::string_view key) const {
  ASSIGN_OR_RETURN(const GgufValue* value, Find(key));
  const double* real = std::get_if<double>(value);
  if (real == nullptr) return WrongKind(key, "a floating-point number");
  return *real;
}

absl::StatusOr<std::string> GgufFile::String(absl::string_view key) const {
  ASSIGN_OR_RETURN(const GgufValue* value, Find(key));
  const std::string* text = std::get_if<std::string>(value);
  if (text == nullptr) return WrongKind(key, "a string");
  return *text;
}

absl::StatusOr<bool> GgufFile::Bool(absl::string_view key) const {
  ASSIGN_OR_RETURN(const GgufValue* value, Find(key));
  const bool* flag = std::get_if<bool>(value);
  if (flag == nullptr) return WrongKind(key, "a bool");
  return *flag;
}

absl::StatusOr<const std::vector<std::string>*> GgufFile::Strings(absl::string_view key) const {
  ASSIGN_OR_RETURN(const GgufValue* value, Find(key));
  const auto* strings = std::get_if<std::vector<std::string>>(value);
  if (strings == nullptr) return WrongKind(key, "an array of strings");
  return strings;
}

absl::StatusOr<const std::vector<int64_t>*> GgufFile::Integers(absl::string_view key) const {
  ASSIGN_OR_RETURN(const GgufValue* value, Find(key));
  const auto* integers = std::get_if<std::vector<int64_t>>(value);
  if (integers == nullptr) return WrongKind(key, "an array of integers");
  return integers;
}

}  // namespace pricer
