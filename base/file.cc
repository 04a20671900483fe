#include "base/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace pricer {
namespace {

absl::StatusCode CodeOfErrno(int error) {
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      return absl::StatusCode::kNotFound;
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::StatusCode::kPermissionDenied;
    case EEXIST:
      return absl::StatusCode::kAlreadyExists;
    case ENOSPC:
    case EDQUOT:
    case EMFILE:
      return absl::StatusCode::kResourceExhausted;
    default:
      return absl::StatusCode::kInternal;
  }
}

// Appends, as a shell's >> does, because the descriptor behind the name may have written before.
absl::StatusOr<FileDescriptor> OpenStream(const std::string& path) {
  FileDescriptor file(open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC));
  if (!file.ok()) return ErrnoStatus("cannot open for writing", path);
  return file;
}

absl::StatusOr<FileDescriptor> CreateFile(const std::string& path) {
  FileDescriptor file(open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  if (!file.ok()) return ErrnoStatus("cannot create", path);
  return file;
}

absl::Status WriteAll(const FileDescriptor& file, const std::string& path,
                      absl::string_view contents) {
  while (!contents.empty()) {
    const ssize_t n = write(file.get(), contents.data(), contents.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoStatus("cannot write", path);
    contents.remove_prefix(n);
  }
  return absl::OkStatus();
}

absl::Status FlushAndClose(FileDescriptor* file, const std::string& path) {
  if (fsync(file->get()) != 0) return ErrnoStatus("cannot flush", path);
  if (!file->Close()) return ErrnoStatus("cannot close", path);
  return absl::OkStatus();
}

}  // namespace

absl::Status ErrnoStatus(absl::string_view action, absl::string_view path) {
  const int error = errno;
  return absl::Status(CodeOfErrno(error),
                      absl::StrCat(path, ": ", action, ": ", std::strerror(error)));
}

absl::Status ErrorCodeStatus(const std::error_code& error, absl::string_view action,
                             absl::string_view path) {
  errno = error.value();
  return ErrnoStatus(action, path);
}

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  FileDescriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.ok()) return ErrnoStatus("cannot open", path);
  std::string contents;
  char buffer[1 << 16];
  for (;;) {
    const ssize_t n = read(file.get(), buffer, sizeof(buffer));
    if (n == 0) return contents;
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoStatus("cannot read", path);
    contents.append(buffer, n);
  }
}

absl::StatusOr<OutputPlace> FindOutputPlace(const std::string& path) {
  namespace fs = std::filesystem;
  constexpr int kMaxLinks = 40;  // as Linux
  std::error_code ignored;       // what cannot be looked at fails when it is opened
  fs::path place = path;
  for (int links = 0; links <= kMaxLinks; ++links) {
    const fs::path parent =
        fs::canonical(place.has_parent_path() ? place.parent_path() : ".", ignored);
    // /dev/stdout and the like end in links of /proc/self/fd, which name even what has no path.
    if (absl::StartsWith(parent.string(), "/proc/")) return OutputPlace{path, true};
    const fs::file_status status = fs::symlink_status(place, ignored);
    if (fs::is_directory(status)) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": expected a file, it is a directory"));
    }
    if (!fs::is_symlink(status)) {
      return OutputPlace{place.string(), fs::exists(status) && !fs::is_regular_file(status)};
    }
    place = place.parent_path() / fs::read_symlink(place, ignored);
  }
  return absl::InvalidArgumentError(absl::StrCat(path, ": too many symbolic links"));
}

absl::Status WriteFile(const std::string& path, absl::string_view contents) {
  ASSIGN_OR_RETURN(FileDescriptor file, CreateFile(path));
  RETURN_IF_ERROR(WriteAll(file, path, contents));
  return FlushAndClose(&file, path);
}

absl::Status WriteFileAtomically(const std::string& path, absl::string_view contents) {
  ASSIGN_OR_RETURN(AtomicFileWriter writer, AtomicFileWriter::Create(path));
  RETURN_IF_ERROR(writer.Append(contents));
  return writer.Commit();
}

absl::StatusOr<AtomicFileWriter> AtomicFileWriter::Create(const std::string& path) {
  // Two writers of one path, in one process or several, must not share a temporary file.
  AtomicFileWriter writer;
  ASSIGN_OR_RETURN(writer.place_, FindOutputPlace(path));
  if (writer.place_.is_stream) {
    writer.temporary_ = writer.place_.path;
    ASSIGN_OR_RETURN(writer.file_, OpenStream(writer.temporary_));
    return writer;
  }
  // Processes of several machines, and of containers that have the same number, may share a folder.
  uint64_t unique = 0;
  if (getentropy(&unique, sizeof(unique)) != 0) return ErrnoStatus("cannot draw a name for", path);
  writer.temporary_ = absl::StrCat(writer.place_.path, ".tmp.", absl::Hex(unique));
  ASSIGN_OR_RETURN(writer.file_, CreateFile(writer.temporary_));
  return writer;
}

AtomicFileWriter::~AtomicFileWriter() {
  if (file_.ok() && !place_.is_stream) unlink(temporary_.c_str());
}

absl::Status AtomicFileWriter::Flush() {
  const absl::Status status = WriteAll(file_, temporary_, buffer_);
  buffer_.clear();
  return status;
}

absl::Status AtomicFileWriter::Append(absl::string_view bytes) {
  constexpr size_t kBufferBytes = 1 << 16;
  if (buffer_.size() + bytes.size() > kBufferBytes) RETURN_IF_ERROR(Flush());
  if (bytes.size() > kBufferBytes) return WriteAll(file_, temporary_, bytes);
  buffer_.append(bytes.data(), bytes.size());
  return absl::OkStatus();
}

absl::Status AtomicFileWriter::Commit() {
  absl::Status status = Flush();
  if (place_.is_stream) {
    if (!file_.Close() && status.ok()) status = ErrnoStatus("cannot close", place_.path);
    return status;
  }
  if (status.ok()) status = FlushAndClose(&file_, temporary_);
  if (status.ok() && rename(temporary_.c_str(), place_.path.c_str()) != 0) {
    status = ErrnoStatus("cannot rename into place", place_.path);
  }
  if (!status.ok()) {
    file_.Close();
    unlink(temporary_.c_str());
    return status;
  }
  return SyncDirectory(std::filesystem::path(place_.path).parent_path().string());
}

bool SameFile(const std::string& a, const std::string& b) {
  namespace fs = std::filesystem;
  std::error_code ignored;  // what cannot be looked at is no file yet, or fails when it is opened
  if (fs::is_other(a, ignored)) return false;
  if (fs::equivalent(a, b, ignored)) return true;
  const fs::path place = fs::weakly_canonical(fs::absolute(a, ignored), ignored);
  return !place.empty() && place == fs::weakly_canonical(fs::absolute(b, ignored), ignored);
}

absl::Status SyncDirectory(const std::string& path) {
  const std::string name = path.empty() ? "." : path;
  FileDescriptor directory(open(name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory.ok()) return ErrnoStatus("cannot open", name);
  if (fsync(directory.get()) != 0) return ErrnoStatus("cannot flush", name);
  return absl::OkStatus();
}

absl::Status MakeDirectories(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  return error ? ErrorCodeStatus(error, "cannot make directory", path) : absl::OkStatus();
}

absl::StatusOr<MappedFile> MappedFile::Open(const std::string& path) {
  FileDescriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.ok()) return ErrnoStatus("cannot open", path);
  struct stat info;
  if (fstat(file.get(), &info) != 0) return ErrnoStatus("cannot stat", path);
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": expected a regular file"));
  }
  MappedFile mapped;
  mapped.path_ = path;
  mapped.size_ = info.st_size;
  if (mapped.size_ == 0) return mapped;
  void* data = mmap(nullptr, mapped.size_, PROT_READ, MAP_PRIVATE, file.get(), 0);
  if (data == MAP_FAILED) return ErrnoStatus("cannot map", path);
  mapped.data_ = static_cast<const char*>(data);
  return mapped;
}

MappedFile::MappedFile(MappedFile&& other) noexcept { *this = std::move(other); }

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(path_, other.path_);
  return *this;
}

void MappedFile::ReleasePages() const {
  // What cannot be released only stays.
  if (data_ != nullptr) madvise(const_cast<char*>(data_), size_, MADV_DONTNEED);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(const_cast<char*>(data_), size_);
}

}  // namespace pricer
