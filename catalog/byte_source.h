#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace pricer {

// The bytes of a file from beginning to end, decompressed. One thread.
class ByteSource {
 public:
  virtual ~ByteSource() = default;

  // Puts 1 to `size` bytes at `out` and returns how many; 0 only at the end of the data. `size`
  // >= 1. DataLoss, naming the file, if compressed data is corrupt or ends too early.
  virtual absl::StatusOr<size_t> Read(char* out, size_t size) = 0;
};

// Opens a plain or gzip file (several members are read as one). Gzip is recognised by its first
// bytes whatever the name; a name that ends in .gz without gzip data behind it is DataLoss.
absl::StatusOr<std::unique_ptr<ByteSource>> OpenByteSource(const std::string& path);

}  // namespace pricer
