#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "base/file.h"

// The GGUF format, versions 2 and 3, of llama.cpp.
// https://github.com/ggml-org/ggml/blob/master/docs/gguf.md

namespace pricer {

// ggml's numbers.
enum class GgmlType : uint32_t { kF32 = 0, kF16 = 1, kQ4_0 = 2, kQ4_1 = 3, kQ8_0 = 8, kBF16 = 30 };

struct GgufTensor {
  GgmlType type = GgmlType::kF32;
  std::vector<int64_t> shape;  // outermost first, as in a checkpoint
  absl::string_view data;      // into the map of the file

  int64_t element_count() const;
};

using GgufValue = std::variant<bool, int64_t, uint64_t, double, std::string,
                               std::vector<std::string>, std::vector<int64_t>, std::vector<double>>;

// A read-only, memory-mapped file. Immutable after Open.
class GgufFile {
 public:
  // DataLoss names file and key or tensor for anything truncated, overlapping or out of bounds;
  // Unimplemented names the version, or the tensor and its type number, that is not read.
  static absl::StatusOr<std::unique_ptr<GgufFile>> Open(const std::string& path);

  const std::map<std::string, GgufValue, std::less<>>& values() const { return values_; }
  const std::map<std::string, GgufTensor, std::less<>>& tensors() const { return tensors_; }
  const std::string& path() const { return file_.path(); }

  // Typed access; NotFound or InvalidArgument name file and key.
  absl::StatusOr<int64_t> Integer(absl::string_view key) const;
  absl::StatusOr<double> Real(absl::string_view key) const;
  absl::StatusOr<std::string> String(absl::string_view key) const;
  absl::StatusOr<bool> Bool(absl::string_view key) const;
  // Owned by the file.
  absl::StatusOr<const std::vector<std::string>*> Strings(absl::string_view key) const;
  absl::StatusOr<const std::vector<int64_t>*> Integers(absl::string_view key) const;
  bool Has(absl::string_view key) const { return values_.find(key) != values_.end(); }

 private:
  explicit GgufFile(MappedFile file) : file_(std::move(file)) {}
  absl::Status Parse();
  absl::StatusOr<const GgufValue*> Find(absl::string_view key) const;
  absl::Status WrongKind(absl::string_view key, absl::string_view expected) const;

  MappedFile file_;
  std::map<std::string, GgufValue, std::less<>> values_;
  std::map<std::string, GgufTensor, std::less<>> tensors_;
};

// Values of a tensor as fp32. REQUIRES: out.size() = element_count().
void DequantizeGguf(const GgufTensor& tensor, absl::Span<float> out);

}  // namespace pricer
