#include "catalog/byte_source.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

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
#include "catalog/object_store.h"

namespace pricer {
namespace {

constexpr size_t kInputBytes = 1 << 17;

constexpr absl::string_view kGzipMagic = "\x1f\x8b";
constexpr absl::string_view kZstdMagic = "\x28\xb5\x2f\xfd";

class FileSource final : public ByteSource {
 public:
  static absl::StatusOr<std::unique_ptr<FileSource>> Open(const std::string& path) {
    FileDescriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!file.ok()) return ErrnoStatus("cannot open", path);
    struct stat status;
    if (fstat(file.get(), &status) != 0) return ErrnoStatus("cannot look at", path);
    const int64_t size = S_ISREG(status.st_mode) ? status.st_size : 0;
    return std::unique_ptr<FileSource>(new FileSource(path, std::move(file), size));
  }

  absl::StatusOr<size_t> Read(char* out, size_t size) override {
    ssize_t n;
    do {
      n = read(file_.get(), out, size);
    } while (n < 0 && errno == EINTR);
    if (n < 0) return ErrnoStatus("cannot read", path_);
    read_ += n;
    return static_cast<size_t>(n);
  }
  double fraction() const override {
    return size_ == 0 ? 0 : std::min(1.0, static_cast<double>(read_) / static_cast<double>(size_));
  }

 private:
  FileSource(const std::string& path, FileDescriptor file, int64_t size)
      : path_(path), file_(std::move(file)), size_(size) {}

  const std::string path_;
  FileDescriptor file_;
  const int64_t size_;
  int64_t read_ = 0;
};

class GzipSource final : public ByteSource {
 public:
  GzipSource(const std::string& path, std::unique_ptr<ByteSource> input)
      : path_(path), input_(std::move(input)), buffer_(kInputBytes) {}
  ~GzipSource() override { inflateEnd(&stream_); }

  absl::Status Init() {
    constexpr int kGzipOnly = 16;
    if (inflateInit2(&stream_, MAX_WBITS + kGzipOnly) != Z_OK) {
      return absl::ResourceExhaustedError(path_ + ": no memory to decompress it");
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
  double fraction() const override { return input_->fraction(); }

 private:
  // False at a proper end of the data.
  absl::StatusOr<bool> FillInput() {
    ASSIGN_OR_RETURN(const size_t n, input_->Read(buffer_.data(), buffer_.size()));
    if (n == 0 && !member_ended_) {
      return absl::DataLossError(path_ + ": gzip data ends too early, the file is truncated");
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
    return absl::DataLossError(absl::StrCat(
        path_, ": corrupt gzip data: ", stream_.msg != nullptr ? stream_.msg : zError(code)));
  }

  const std::string path_;
  const std::unique_ptr<ByteSource> input_;
  std::vector<char> buffer_;
  z_stream stream_ = {};
  bool member_ended_ = false;
};

class ZstdSource final : public ByteSource {
 public:
  ZstdSource(const std::string& path, std::unique_ptr<ByteSource> input)
      : path_(path),
        input_(std::move(input)),
        buffer_(kInputBytes),
        stream_(ZSTD_createDStream(), &ZSTD_freeDStream) {}

  absl::Status Init() const {
    if (stream_ != nullptr) return absl::OkStatus();
    return absl::ResourceExhaustedError(path_ + ": no memory to decompress it");
  }

  absl::StatusOr<size_t> Read(char* out, size_t size) override {
    ZSTD_outBuffer output = {.dst = out, .size = size, .pos = 0};
    while (output.pos == 0) {
      // Output that did not fit last time may wait inside the stream.
      if (in_.pos == in_.size && !output_was_full_) {
        ASSIGN_OR_RETURN(const bool more, FillInput());
        if (!more) return 0;
      }
      const size_t hint = ZSTD_decompressStream(stream_.get(), &output, &in_);
      if (ZSTD_isError(hint)) {
        return absl::DataLossError(
            absl::StrCat(path_, ": corrupt zstd data: ", ZSTD_getErrorName(hint)));
      }
      frame_ended_ = hint == 0;
      output_was_full_ = !frame_ended_ && output.pos == output.size;
    }
    return output.pos;
  }
  double fraction() const override { return input_->fraction(); }

 private:
  // False at a proper end of the data.
  absl::StatusOr<bool> FillInput() {
    ASSIGN_OR_RETURN(const size_t n, input_->Read(buffer_.data(), buffer_.size()));
    if (n == 0 && !frame_ended_) {
      return absl::DataLossError(path_ + ": zstd data ends too early, the file is truncated");
    }
    in_ = {.src = buffer_.data(), .size = n, .pos = 0};
    return n > 0;
  }

  const std::string path_;
  const std::unique_ptr<ByteSource> input_;
  std::vector<char> buffer_;
  ZSTD_inBuffer in_ = {};
  const std::unique_ptr<ZSTD_DStream, size_t (*)(ZSTD_DStream*)> stream_;
  bool frame_ended_ = false;
  bool output_was_full_ = false;
};

template <typename Source>
absl::StatusOr<std::unique_ptr<ByteSource>> Decompress(const std::string& path,
                                                       std::unique_ptr<ByteSource> input) {
  auto source = std::make_unique<Source>(path, std::move(input));
  RETURN_IF_ERROR(source->Init());
  return source;
}

}  // namespace

PeekSource::PeekSource(std::unique_ptr<ByteSource> source) : source_(std::move(source)) {}

absl::StatusOr<absl::string_view> PeekSource::Peek(size_t size) {
  head_.erase(0, begin_);
  begin_ = 0;
  size_t have = head_.size();
  if (have < size) head_.resize(size);
  while (have < size) {
    absl::StatusOr<size_t> n = source_->Read(head_.data() + have, size - have);
    if (!n.ok() || *n == 0) {
      head_.resize(have);
      RETURN_IF_ERROR(n.status());
      break;
    }
    have += *n;
  }
  return absl::string_view(head_).substr(0, size);
}

absl::StatusOr<size_t> PeekSource::Read(char* out, size_t size) {
  if (begin_ == head_.size()) return source_->Read(out, size);
  const size_t n = std::min(size, head_.size() - begin_);
  std::memcpy(out, head_.data() + begin_, n);
  begin_ += n;
  return n;
}

absl::StatusOr<std::unique_ptr<ByteSource>> OpenFileAsItIs(const std::string& path) {
  return FileSource::Open(path);
}

absl::StatusOr<std::unique_ptr<ByteSource>> OpenByteSource(const std::string& path) {
  ASSIGN_OR_RETURN(std::unique_ptr<ByteSource> bytes,
                   IsObject(path) ? OpenObject(path) : OpenFileAsItIs(path));
  auto input = std::make_unique<PeekSource>(std::move(bytes));
  ASSIGN_OR_RETURN(const absl::string_view head, input->Peek(kZstdMagic.size()));
  if (absl::StartsWith(head, kGzipMagic)) return Decompress<GzipSource>(path, std::move(input));
  if (absl::StartsWith(head, kZstdMagic)) return Decompress<ZstdSource>(path, std::move(input));
  for (const auto& [suffix, kind] : {std::pair(".gz", "gzip"), std::pair(".zst", "zstd")}) {
    if (!absl::EndsWithIgnoreCase(path, suffix)) continue;
    return absl::DataLossError(absl::StrCat(path, ": the name ends in ", suffix,
                                            " but the contents are not ", kind, " data"));
  }
  return input;
}

}  // namespace pricer
