#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace pricer {

class ByteSource;

// The lines of a file, with memory bounded by the longest line allowed. One
// thread.
class LineReader {
 public:
  struct Line {
    // Without the line feed; valid until the next call. Empty when too_long.
    absl::string_view text;
    // From 1; counts every line feed.
    int64_t number = 0;
    bool too_long = false;
  };

  LineReader(std::unique_ptr<ByteSource> source, size_t max_line_bytes);
  ~LineReader();

  // False at the end. The last line may lack its line feed. A UTF-8 byte order mark at the head of
  // the file is skipped.
  absl::StatusOr<bool> Next(Line* line);

  double fraction() const;  // ByteSource's

 private:
  void Emit(size_t length, Line* line);
  absl::StatusOr<bool> Fill();

  const std::unique_ptr<ByteSource> source_;
  const size_t max_line_bytes_;
  std::string buffer_;
  size_t begin_ = 0;    // of the line that comes next
  size_t end_ = 0;      // of what was read
  size_t scanned_ = 0;  // no line feed before here
  int64_t number_ = 0;
  bool dropping_ = false;  // the head of a too long line was thrown away
  bool at_end_ = false;
};

}  // namespace pricer
