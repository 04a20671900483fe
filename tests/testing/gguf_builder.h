#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "model/gguf.h"

namespace pricer::testing {

// Bytes of a number, little-endian.
template <typename T>
std::string Raw(T value) {
  std::string bytes(sizeof(T), '\0');
  std::memcpy(bytes.data(), &value, sizeof(T));
  return bytes;
}

inline std::string RawString(const std::string& text) { return Raw<uint64_t>(text.size()) + text; }

// Puts GGUF files together, right ones and wrong ones.
class GgufBuilder {
 public:
  // A value in the bytes that follow its type number.
  GgufBuilder& Value(const std::string& key, uint32_t type, const std::string& bytes) {
    values_ += RawString(key) + Raw(type) + bytes;
    ++value_count_;
    return *this;
  }
  GgufBuilder& Integer(const std::string& key, uint32_t value) { return Value(key, 4, Raw(value)); }
  GgufBuilder& Real(const std::string& key, float value) { return Value(key, 6, Raw(value)); }
  GgufBuilder& Bool(const std::string& key, bool value) {
    return Value(key, 7, Raw<uint8_t>(value));
  }
  GgufBuilder& String(const std::string& key, const std::string& value) {
    return Value(key, 8, RawString(value));
  }
  GgufBuilder& Integers(const std::string& key, const std::vector<int32_t>& values) {
    std::string bytes = Raw<uint32_t>(5) + Raw<uint64_t>(values.size());
    for (const int32_t value : values) bytes += Raw(value);
    return Value(key, 9, bytes);
  }
  GgufBuilder& Strings(const std::string& key, const std::vector<std::string>& values) {
    std::string bytes = Raw<uint32_t>(8) + Raw<uint64_t>(values.size());
    for (const std::string& value : values) bytes += RawString(value);
    return Value(key, 9, bytes);
  }

  // `shape` outermost first; the data comes behind that of the tensor before, aligned.
  GgufBuilder& Tensor(const std::string& name, const std::vector<int64_t>& shape, uint32_t type,
                      const std::string& data) {
    return TensorAt(name, shape, type, data, data_.size());
  }
  // Only describes the tensor at an offset of choice and appends `data`.
  GgufBuilder& TensorAt(const std::string& name, const std::vector<int64_t>& shape, uint32_t type,
                        const std::string& data, uint64_t offset) {
    table_ += RawString(name) + Raw<uint32_t>(shape.size());
    for (size_t i = shape.size(); i > 0; --i) table_ += Raw(shape[i - 1]);
    table_ += Raw(type) + Raw(offset);
    data_ += data;
    Pad(&data_);
    ++tensor_count_;
    return *this;
  }
  GgufBuilder& Floats(const std::string& name, const std::vector<int64_t>& shape,
                      const std::vector<float>& values) {
    std::string data(values.size() * sizeof(float), '\0');
    std::memcpy(data.data(), values.data(), data.size());
    return Tensor(name, shape, static_cast<uint32_t>(GgmlType::kF32), data);
  }

  // Before the first tensor.
  GgufBuilder& Alignment(uint32_t alignment) {
    alignment_ = alignment;
    return Integer("general.alignment", alignment);
  }
  GgufBuilder& Version(uint32_t version) {
    version_ = version;
    return *this;
  }
  GgufBuilder& ExtraCounts(uint64_t tensors, uint64_t values) {
    tensor_count_ += tensors;
    value_count_ += values;
    return *this;
  }

  std::string Build() const {
    std::string bytes = "GGUF" + Raw(version_) + Raw(tensor_count_) + Raw(value_count_);
    bytes += values_ + table_;
    if (!data_.empty()) Pad(&bytes);
    return bytes + data_;
  }

 private:
  void Pad(std::string* bytes) const {
    while (bytes->size() % alignment_ != 0) *bytes += '\0';
  }

  uint32_t version_ = 3;
  uint32_t alignment_ = 32;
  uint64_t tensor_count_ = 0;
  uint64_t value_count_ = 0;
  std::string values_;
  std::string table_;
  std::string data_;
};

}  // namespace pricer::testing
