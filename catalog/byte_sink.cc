#include "catalog/byte_sink.h"

#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace pricer {
namespace {

constexpr size_t kOutputBytes = 1 << 17;

class PlainSink final : public ByteSink {
 public:
  explicit PlainSink(AtomicFileWriter file) : file_(std::move(file)) {}

  absl::Status Append(absl::string_view bytes) override { return file_.Append(bytes); }
  absl::Status Commit() override { return file_.Commit(); }

 private:
  AtomicFileWriter file_;
};

class GzipSink final : public ByteSink {
 public:
  GzipSink(std::string path, AtomicFileWriter file)
      : path_(std::move(path)), file_(std::move(file)), buffer_(kOutputBytes) {}
  ~GzipSink() override { deflateEnd(&stream_); }

  absl::Status Init() {
    constexpr int kGzip = 16;
    constexpr int kMemoryLevel = 8;  // zlib's own default
    const int code = deflateInit2(&stream_, Z_DEFAULT_COMPRESSION, Z_DEFLATED, MAX_WBITS + kGzip,
                                  kMemoryLevel, Z_DEFAULT_STRATEGY);
    if (code == Z_OK) return absl::OkStatus();
    return absl::ResourceExhaustedError(path_ + ": no memory to compress it");
  }

  absl::Status Append(absl::string_view bytes) override {
    // zlib counts in 32 bits.
    constexpr size_t kMost = size_t{1} << 30;
    for (; !bytes.empty(); bytes.remove_prefix(std::min(kMost, bytes.size()))) {
      RETURN_IF_ERROR(Deflate(bytes.substr(0, kMost), Z_NO_FLUSH));
    }
    return absl::OkStatus();
  }

  absl::Status Commit() override {
    RETURN_IF_ERROR(Deflate("", Z_FINISH));
    return file_.Commit();
  }

 private:
  absl::Status Deflate(absl::string_view bytes, int flush) {
    stream_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
    stream_.avail_in = static_cast<uInt>(bytes.size());
    do {
      stream_.next_out = reinterpret_cast<Bytef*>(buffer_.data());
      stream_.avail_out = static_cast<uInt>(buffer_.size());
      if (deflate(&stream_, flush) == Z_STREAM_ERROR) {
        return absl::InternalError(absl::StrCat(path_, ": cannot be compressed"));
      }
      RETURN_IF_ERROR(file_.Append({buffer_.data(), buffer_.size() - stream_.avail_out}));
    } while (stream_.avail_out == 0);
    return absl::OkStatus();
  }

  const std::string path_;
  AtomicFileWriter file_;
  std::vector<char> buffer_;
  z_stream stream_ = {};
};

class ZstdSink final : public ByteSink {
 public:
  ZstdSink(std::string path, AtomicFileWriter file)
      : path_(std::move(path)),
        file_(std::move(file)),
        buffer_(kOutputBytes),
        stream_(ZSTD_createCCtx(), &ZSTD_freeCCtx) {}

  absl::Status Init() {
    if (stream_ == nullptr) {
      return absl::ResourceExhaustedError(path_ + ": no memory to compress it");
    }
    // So that a reader sees damage, as with gzip.
    const size_t code = ZSTD_CCtx_setParameter(stream_.get(), ZSTD_c_checksumFlag, 1);
    if (!ZSTD_isError(code)) return absl::OkStatus();
    return absl::InternalError(absl::StrCat(path_, ": ", ZSTD_getErrorName(code)));
  }

  absl::Status Append(absl::string_view bytes) override { return Compress(bytes, ZSTD_e_continue); }

  absl::Status Commit() override {
    RETURN_IF_ERROR(Compress("", ZSTD_e_end));
    return file_.Commit();
  }

 private:
  absl::Status Compress(absl::string_view bytes, ZSTD_EndDirective end) {
    ZSTD_inBuffer input = {.src = bytes.data(), .size = bytes.size(), .pos = 0};
    size_t left;
    do {
      ZSTD_outBuffer output = {.dst = buffer_.data(), .size = buffer_.size(), .pos = 0};
      left = ZSTD_compressStream2(stream_.get(), &output, &input, end);
      if (ZSTD_isError(left)) {
        return absl::InternalError(
            absl::StrCat(path_, ": cannot be compressed: ", ZSTD_getErrorName(left)));
      }
      RETURN_IF_ERROR(file_.Append({buffer_.data(), output.pos}));
    } while (end == ZSTD_e_end ? left > 0 : input.pos < input.size);
    return absl::OkStatus();
  }

  const std::string path_;
  AtomicFileWriter file_;
  std::vector<char> buffer_;
  const std::unique_ptr<ZSTD_CCtx, size_t (*)(ZSTD_CCtx*)> stream_;
};

template <typename Sink>
absl::StatusOr<std::unique_ptr<ByteSink>> Compressed(const std::string& path,
                                                     AtomicFileWriter file) {
  auto sink = std::make_unique<Sink>(path, std::move(file));
  RETURN_IF_ERROR(sink->Init());
  return sink;
}

bool IsGzipName(absl::string_view path) { return absl::EndsWithIgnoreCase(path, ".gz"); }
bool IsZstdName(absl::string_view path) { return absl::EndsWithIgnoreCase(path, ".zst"); }

}  // namespace

bool IsCompressedName(absl::string_view path) { return IsGzipName(path) || IsZstdName(path); }

absl::StatusOr<std::unique_ptr<ByteSink>> ByteSink::Create(const std::string& path) {
  ASSIGN_OR_RETURN(AtomicFileWriter file, AtomicFileWriter::Create(path));
  if (IsGzipName(path)) return Compressed<GzipSink>(path, std::move(file));
  if (IsZstdName(path)) return Compressed<ZstdSink>(path, std::move(file));
  return std::make_unique<PlainSink>(std::move(file));
}

absl::StatusOr<std::unique_ptr<ByteSink>> ByteSink::CreateAsItIs(const std::string& path) {
  ASSIGN_OR_RETURN(AtomicFileWriter file, AtomicFileWriter::Create(path));
  return std::make_unique<PlainSink>(std::move(file));
}

absl::Status CopyBytes(ByteSource* from, ByteSink* to) {
  constexpr size_t kPieceBytes = size_t{1} << 20;
  std::vector<char> piece(kPieceBytes);
  for (;;) {
    ASSIGN_OR_RETURN(const size_t n, from->Read(piece.data(), piece.size()));
    if (n == 0) return to->Commit();
    RETURN_IF_ERROR(to->Append({piece.data(), n}));
  }
}

}  // namespace pricer
