#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/file.h"

// The safetensors format: u64 little-endian header length, JSON header, data.
// https://github.com/huggingface/safetensors

namespace pricer {

enum class Dtype { kF64, kF32, kF16, kBF16, kI64, kI32, kI16, kI8, kU8, kBool };

int64_t DtypeBytes(Dtype dtype);
// "F32", "BF16", ...: the name in the file.
absl::string_view DtypeName(Dtype dtype);

// One tensor of a file. `data` points into the map of the file, little-endian, C order, not
// necessarily aligned.
struct TensorView {
  Dtype dtype = Dtype::kF32;
  std::vector<int64_t> shape;
  absl::string_view data;

  int64_t element_count() const;
  // "F32 [4, 8]".
  std::string ToString() const;
};

// A read-only, memory-mapped file. Thread-safe after Open. Views live as long as the object.
class SafetensorsFile {
 public:
  // Strict. DataLoss names file and tensor for: short file, header over 100 MB or beyond the file,
  // header that is not the JSON expected, duplicate tensor, unknown dtype, negative or overflowing
  // shape, size that differs from the shape's, overlap, gap, bytes after the last tensor.
  static absl::StatusOr<std::unique_ptr<SafetensorsFile>> Open(const std::string& path);

  // The same over bytes in memory, which the object keeps; `path` names them in errors. For files
  // that somebody may shorten meanwhile, which would kill a process that maps them.
  static absl::StatusOr<std::unique_ptr<SafetensorsFile>> Parse(std::string bytes,
                                                                const std::string& path);

  const std::map<std::string, TensorView, std::less<>>& tensors() const { return tensors_; }
  const std::map<std::string, std::string, std::less<>>& metadata() const { return metadata_; }
  const std::string& path() const { return path_; }
  // See MappedFile.
  void ReleasePages() const {
    if (mapped_.has_value()) mapped_->ReleasePages();
  }

 private:
  explicit SafetensorsFile(std::string path) : path_(std::move(path)) {}
  absl::Status ParseHeader(absl::string_view file);

  std::string path_;
  // One of the two holds the bytes.
  std::optional<MappedFile> mapped_;
  std::string bytes_;
  std::map<std::string, TensorView, std::less<>> tensors_;
  std::map<std::string, std::string, std::less<>> metadata_;
};

struct NamedTensor {
  std::string name;
  TensorView view;
};

// Writes tensors (sorted by name inside equal alignment, as the reference library: larger dtypes
// first, then name) and `metadata` to `path`, flushed to the disk. Same input, same bytes.
absl::Status WriteSafetensors(const std::string& path, const std::vector<NamedTensor>& tensors,
                              const std::map<std::string, std::string>& metadata);

// A tensor whose bytes are made while the file is written, so that they need not fit into memory.
struct StreamedTensor {
  using Append = std::function<absl::Status(absl::string_view bytes)>;

  std::string name;
  Dtype dtype = Dtype::kF32;
  std::vector<int64_t> shape;
  // Gives all bytes to `append`, in order and in pieces of any size. An error ends the writing.
  std::function<absl::Status(const Append& append)> write;
};

// WriteSafetensors for streamed tensors. Internal where one gives more or fewer bytes than its
// shape has.
absl::Status StreamSafetensors(const std::string& path, std::vector<StreamedTensor> tensors,
                               const std::map<std::string, std::string>& metadata);

}  // namespace pricer
