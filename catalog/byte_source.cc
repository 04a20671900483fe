#include "catalog/byte_source.h"

#include <fcntl.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/file_descriptor.h"
#include "base/status_macros.h"

namespace pricer {
namespace {

constexpr size_t kInputBytes = 1 << 17;

// A file whose first bytes can be looked at before they are read.
class FileInput {
 public:
  static absl::StatusOr<FileInput> Open(const std::string& path) {
    FileInput input(path);
    input.file_ = FileDescriptor(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!input.file_.ok()) return ErrnoStatus("cannot open", path);
    input.head_.resize(2);
    size_t have = 0;
    while (have < input.head_.size()) {
      ASSIGN_OR_RETURN(const size_t n,
                       input.ReadFile(input.head_.data() + have, input.head_.size() - have));
      if (n == 0) break;
      have += n;
    }
    input.head_.resize(have);
    return input;
  }

  const std::string& path() const { return path_; }
  bool StartsWithGzipMagic() const { return head_ == "\x1f\x8b"; }

  absl::StatusOr<size_t> Read(char* out, size_t size) {
    if (!head_.empty()) {
      const size_t n = std::min(size, head_.size());
      std::memcpy(out, head_.data(), n);
      head_.erase(0, n);
      return n;
    }
    return ReadFile(out, size);
  }

 private:
  explicit FileInput(const std::string& path) : path_(path) {}

  absl::StatusOr<size_t> ReadFile(char* out, size_t size) {
    ssize_t n;
    do {
      n = read(file_.get(), out, size);
    } while (n < 0 && errno == EINTR);
    if (n < 0) return ErrnoStatus("cannot read", path_);
    return static_cast<size_t>(n);
  }

  std::string path_;
  FileDescriptor file_;
  std::string head_;
};

class PlainSource final : public ByteSource {
 public:
  explicit PlainSource(FileInput input) : input_(std::move(input)) {}
  absl::StatusOr<size_t> Read(char* out, size_t size) override { return input_.Read(out, size); }

 private:
  FileInput input_;
};

class GzipSource final : public ByteSource {
 public:
  explicit GzipSource(FileInput input) : input_(std::move(input)), buffer_(kInputBytes) {}
  ~GzipSource() override { inflateEnd(&stream_); }

  absl::Status Init() {
    constexpr int kGzipOnly = 16;
    if (inflateInit2(&stream_, MAX_WBITS + kGzipOnly) != Z_OK) {
      return absl::ResourceExhaustedError(input_.path() + ": no memory to decompress it");
    }
    return absl::OkStatus();
  }

  absl::StatusOr<size_t> Read(char* out, size_t size) override {
    stream_.next_out = reinterpret_cast<Bytef*>(out);
    stream_.avail_out = size;
    while (stream_.avail_out == size) {
      if (stream_.avail_in == 0) {
        ASSIGN_OR_RETURN(const bool more, FillInput());
        if (!more) return 0;
      }
      RETURN_IF_ERROR(Inflate());
    }
    return size - stream_.avail_out;
  }

 private:
  // False at a proper end of the data.
  absl::StatusOr<bool> FillInput() {
    ASSIGN_OR_RETURN(const size_t n, input_.Read(buffer_.data(), buffer_.size()));
    if (n == 0 && !member_ended_) {
      return absl::DataLossError(input_.path() +
                                 ": gzip data ends too early, the file is truncated");
    }
    stream_.next_in = reinterpret_cast<Bytef*>(buffer_.data());
    stream_.avail_in = n;
    return n > 0;
  }

  absl::Status Inflate() {
    if (member_ended_) {
      inflateReset(&stream_);
      member_ended_ = false;
    }
    const int code = inflate(&stream_, Z_NO_FLUSH);
    member_ended_ = code == Z_STREAM_END;
    if (code == Z_OK || code == Z_STREAM_END) return absl::OkStatus();
    return absl::DataLossError(absl::StrCat(input_.path(), ": corrupt gzip data: ",
                                            stream_.msg != nullptr ? stream_.msg : zError(code)));
  }

  FileInput input_;
  std::vector<char> buffer_;
  z_stream stream_ = {};
  bool member_ended_ = false;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ByteSource>> OpenByteSource(const std::string& path) {
  ASSIGN_OR_RETURN(FileInput input, FileInput::Open(path));
  if (input.StartsWithGzipMagic()) {
    auto source = std::make_unique<GzipSource>(std::move(input));
    RETURN_IF_ERROR(source->Init());
    return source;
  }
  if (absl::EndsWithIgnoreCase(path, ".gz")) {
    return absl::DataLossError(path + ": the name ends in .gz but the contents are not gzip data");
  }
  return std::make_unique<PlainSource>(std::move(input));
}

}  // namespace pricer
