#include "catalog/csv_record.h"

#include <algorithm>
#include <array>

namespace pricer {

size_t CsvRecordScanner::Scan(absl::string_view text) {
  for (size_t i = 0; i < text.size(); ++i) {
    if (Step(text[i])) return i + 1;
  }
  return absl::string_view::npos;
}

bool CsvRecordScanner::Step(char c) {
  if (state_ == State::kInQuotes) {
    if (c == '"') state_ = State::kQuoteInQuotes;
    return false;
  }
  if (c == '"' && state_ != State::kInValue) {
    state_ = State::kInQuotes;
    return false;
  }
  const bool is_delimiter = delimiters_.find(c) != absl::string_view::npos;
  state_ = is_delimiter ? State::kValueStart : State::kInValue;
  return c == '\n' || c == '\r';
}

char DetectCsvDelimiter(absl::string_view header) {
  std::array<int, kCsvDelimiters.size()> counts = {};
  CsvRecordScanner scanner(kCsvDelimiters);
  for (const char c : header) {
    const size_t which = kCsvDelimiters.find(c);
    if (which != absl::string_view::npos && !scanner.in_quotes()) ++counts[which];
    scanner.Step(c);
  }
  return kCsvDelimiters[std::max_element(counts.begin(), counts.end()) - counts.begin()];
}

}  // namespace pricer
