#include "catalog/line_reader.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/strip.h"
#include "base/status_macros.h"
#include "catalog/byte_source.h"

namespace pricer {
namespace {
constexpr size_t kBufferBytes = 1 << 18;
}  // namespace

LineReader::LineReader(std::unique_ptr<ByteSource> source, size_t max_line_bytes)
    : source_(std::move(source)), max_line_bytes_(max_line_bytes), buffer_(kBufferBytes, '\0') {}

LineReader::~LineReader() = default;

double LineReader::fraction() const { return source_->fraction(); }

absl::StatusOr<bool> LineReader::Next(Line* line) {
  for (;;) {
    const char* unscanned = buffer_.data() + scanned_;
    if (const void* found = std::memchr(unscanned, '\n', end_ - scanned_)) {
      const size_t at = static_cast<const char*>(found) - buffer_.data();
      Emit(at - begin_, line);
      begin_ = scanned_ = at + 1;
      return true;
    }
    scanned_ = end_;
    if (at_end_) {
      if (begin_ == end_ && !dropping_) return false;
      Emit(end_ - begin_, line);
      begin_ = end_;
      return true;
    }
    ASSIGN_OR_RETURN(const bool more, Fill());
    at_end_ = !more;
  }
}

void LineReader::Emit(size_t length, Line* line) {
  line->number = ++number_;
  line->too_long = dropping_ || length > max_line_bytes_;
  line->text =
      line->too_long ? absl::string_view() : absl::string_view(buffer_.data() + begin_, length);
  if (number_ == 1) absl::ConsumePrefix(&line->text, "\xEF\xBB\xBF");
  dropping_ = false;
}

absl::StatusOr<bool> LineReader::Fill() {
  if (end_ - begin_ > max_line_bytes_) {
    dropping_ = true;
    begin_ = end_;
  }
  std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
  end_ -= begin_;
  begin_ = 0;
  if (end_ == buffer_.size()) buffer_.resize(2 * buffer_.size());
  scanned_ = end_;
  ASSIGN_OR_RETURN(const size_t n, source_->Read(buffer_.data() + end_, buffer_.size() - end_));
  end_ += n;
  return n > 0;
}

}  // namespace pricer
