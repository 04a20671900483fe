#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "catalog/byte_source.h"

namespace pricer {

// Whether a name asks for compression: .gz or .zst behind it.
bool IsCompressedName(absl::string_view path);

// Bytes to a file, as AtomicFileWriter takes them there: gzip where its name ends in .gz, zstd in
// .zst, else as they are. The same bytes always give the same file. One thread.
class ByteSink {
 public:
  static absl::StatusOr<std::unique_ptr<ByteSink>> Create(const std::string& path);
  // Whatever the name.
  static absl::StatusOr<std::unique_ptr<ByteSink>> CreateAsItIs(const std::string& path);
  // Without a commit nothing is left behind.
  virtual ~ByteSink() = default;

  virtual absl::Status Append(absl::string_view bytes) = 0;
  // The file is there, whole. Call at most once, last.
  virtual absl::Status Commit() = 0;
};

// All that is left of the one, and the other's commit.
absl::Status CopyBytes(ByteSource* from, ByteSink* to);

}  // namespace pricer
