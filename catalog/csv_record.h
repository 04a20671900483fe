#pragma once

#include <cstddef>

#include "absl/strings/string_view.h"

namespace pricer {

// Follows CSV text byte by byte to see where its first record ends. One thread.
class CsvRecordScanner {
 public:
  // Each of `delimiters` ends a value.
  explicit CsvRecordScanner(absl::string_view delimiters) : delimiters_(delimiters) {}

  // Of the text that follows what was scanned before: how many bytes belong to the record, its line
  // feed or carriage return included, or npos if it does not end there.
  size_t Scan(absl::string_view text);

  // Takes one byte and says whether the record ends with it.
  bool Step(char c);

  // Whether the record is inside a quoted value after the bytes so far.
  bool in_quotes() const { return state_ == State::kInQuotes; }

 private:
  // kQuoteInQuotes: the value's end, unless a second quote follows.
  enum class State { kValueStart, kInValue, kInQuotes, kQuoteInQuotes };

  const absl::string_view delimiters_;
  State state_ = State::kValueStart;
};

// The delimiter of a header; see csv_source.h.
char DetectCsvDelimiter(absl::string_view header);

// What DetectCsvDelimiter chooses from.
inline constexpr absl::string_view kCsvDelimiters = ",;\t";

}  // namespace pricer
