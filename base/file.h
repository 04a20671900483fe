#pragma once

#include <cstddef>
#include <string>
#include <system_error>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/file_descriptor.h"

namespace pricer {

// Status of the current errno, worded "<path>: <action>: <reason>": NotFound, PermissionDenied,
// AlreadyExists, ResourceExhausted (disk or quota full), else Internal.
absl::Status ErrnoStatus(absl::string_view action, absl::string_view path);

// The same of what std::filesystem says.
absl::Status ErrorCodeStatus(const std::error_code& error, absl::string_view action,
                             absl::string_view path);

// Whole file as bytes.
absl::StatusOr<std::string> ReadFile(const std::string& path);

// Where the bytes for an output path go.
struct OutputPlace {
  // Behind symbolic links, so that these stay.
  std::string path;
  // A device, a pipe or a name of an open descriptor such as /dev/stdout: it is written to as it
  // is, because a rename would put a file in its place.
  bool is_stream = false;
};

// InvalidArgument for a directory or a ring of links. What is not there yet is a file to come.
absl::StatusOr<OutputPlace> FindOutputPlace(const std::string& path);

// Writes all bytes to a new or truncated file and flushes them to the disk (fsync).
absl::Status WriteFile(const std::string& path, absl::string_view contents);

// WriteFile to a temporary sibling of the path's OutputPlace, then rename: readers see the old
// bytes or the new ones, never a part. Streams are written to directly.
absl::Status WriteFileAtomically(const std::string& path, absl::string_view contents);

// WriteFileAtomically for contents that do not fit into memory. Appends go through a buffer to a
// temporary sibling of the OutputPlace; Commit renames it into place. Without a commit nothing is
// left behind. Only streams get their bytes as they come. One thread.
class AtomicFileWriter {
 public:
  static absl::StatusOr<AtomicFileWriter> Create(const std::string& path);
  AtomicFileWriter(AtomicFileWriter&& other) noexcept = default;
  AtomicFileWriter& operator=(AtomicFileWriter&& other) noexcept = delete;
  ~AtomicFileWriter();

  absl::Status Append(absl::string_view bytes);

  // Flushes to the disk and renames. Call at most once, last.
  absl::Status Commit();

 private:
  AtomicFileWriter() = default;
  absl::Status Flush();

  OutputPlace place_;
  std::string temporary_;  // the path itself for a stream
  FileDescriptor file_;    // none after a commit, a failure or a move
  std::string buffer_;
};

// Whether writing one destroys the other: two names of one file, or of the same place where there
// is none yet. Never of devices and pipes.
bool SameFile(const std::string& a, const std::string& b);

// Flushes a directory's entries to the disk, so that renames and new files in it survive a power
// loss.
absl::Status SyncDirectory(const std::string& path);

// Makes the directory and its parents; fine if it is there already.
absl::Status MakeDirectories(const std::string& path);

// A read-only memory map of a whole file. Movable; the bytes live as long as the object. A file
// that shrinks while it is mapped kills the process on access, as with every mmap.
class MappedFile {
 public:
  static absl::StatusOr<MappedFile> Open(const std::string& path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  absl::string_view bytes() const { return {data_, size_}; }
  // The process holds none of the bytes in memory until they are looked at again.
  void ReleasePages() const;
  const std::string& path() const { return path_; }

 private:
  MappedFile() = default;
  const char* data_ = nullptr;
  size_t size_ = 0;
  std::string path_;
};

}  // namespace pricer
