#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace pricer {

// The bytes of a file from beginning to end, decompressed. One thread.
class ByteSource {
 public:
  virtual ~ByteSource() = default;

  // Puts 1 to `size` bytes at `out` and returns how many; 0 only at the end of the data. `size`
  // >= 1. DataLoss, naming the file, if compressed data is corrupt or ends too early.
  virtual absl::StatusOr<size_t> Read(char* out, size_t size) = 0;

  // How much of the file has been read, 0 to 1; 0 where its length is not known.
  virtual double fraction() const = 0;
};

// A source whose next bytes can be looked at before they are read.
class PeekSource final : public ByteSource {
 public:
  explicit PeekSource(std::unique_ptr<ByteSource> source);

  // The next `size` bytes, fewer only where the data ends before; valid until the next call.
  absl::StatusOr<absl::string_view> Peek(size_t size);
  absl::StatusOr<size_t> Read(char* out, size_t size) override;
  double fraction() const override { return source_->fraction(); }

 private:
  const std::unique_ptr<ByteSource> source_;
  std::string head_;  // was looked at
  size_t begin_ = 0;  // of what was not read of it
};

// A file's bytes, compressed or not.
absl::StatusOr<std::unique_ptr<ByteSource>> OpenFileAsItIs(const std::string& path);

// Opens a plain, gzip or zstd file, or an object (object_store.h) of such bytes (several members or
// frames are read as one). Compression is recognised by the first bytes whatever the name; a name
// that ends in .gz or .zst without such data behind it is DataLoss. A zstd frame that needs more
// than 128 MiB of memory (made with --long or --ultra) is refused as DataLoss.
absl::StatusOr<std::unique_ptr<ByteSource>> OpenByteSource(const std::string& path);

}  // namespace pricer
