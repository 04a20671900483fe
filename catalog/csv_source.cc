#include "catalog/csv_source.h"

#include <arrow/csv/options.h>
#include <arrow/csv/parser.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <deque>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "base/status_macros.h"
#include "base/utf8.h"
#include "catalog/csv_record.h"

namespace pricer {
namespace {

using ::arrow::csv::BlockParser;
using ::arrow::csv::InvalidRow;
using ::arrow::csv::InvalidRowResult;
using ::arrow::csv::ParseOptions;

constexpr size_t kBlockBytes = size_t{1} << 18;
// Arrow's parser takes memory for 512 rows of any width.
constexpr size_t kMaxColumns = 10'000;
// It counts bytes in 31 bits.
constexpr size_t kMaxRowBytes = size_t{1} << 30;

absl::string_view ViewOf(const uint8_t* data, uint32_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

// Reads blocks of bytes and has Arrow's parser, not its reader, divide them into values: the reader
// stops at a row that is longer than a block and takes a quote that is never closed for a value.
class CsvSource final : public RowSource {
 public:
  CsvSource(const std::string& path, std::unique_ptr<ByteSource> bytes,
            const RowSourceOptions& options)
      : path_(path),
        bytes_(std::move(bytes)),
        max_row_bytes_(std::min(options.max_row_bytes, kMaxRowBytes)),
        delimiter_(options.csv_delimiter) {}

  absl::Status ReadHeader(const ItemColumns& columns);
  absl::StatusOr<bool> Next(Row* row) override;
  double fraction() const override { return bytes_->fraction(); }

 private:
  struct Skipped {
    int64_t number;
    std::string reason;
  };

  // Reads on until the buffer holds `size` bytes or the data ends.
  absl::Status Fill(size_t size);
  absl::StatusOr<std::string> TakeHeader();
  absl::StatusOr<bool> ReadBlock();
  absl::Status ParseBlock(bool is_last_record);
  absl::Status TakeColumns();
  absl::Status DropRecord();
  void TakeRow(Row* row) const;
  absl::Status Corrupt(const arrow::Status& status) const;
  absl::Status UnclosedQuote() const;

  const std::string path_;
  const std::unique_ptr<ByteSource> bytes_;
  const size_t max_row_bytes_;
  char delimiter_;
  ParseOptions options_;
  std::array<std::string, kNumItemFields> names_;
  std::array<int, kNumItemFields> places_ = {};  // in the header, -1 for none
  int width_ = 0;

  std::string buffer_;  // starts with a record or a line end
  bool at_end_ = false;

  // The block that was parsed last.
  std::unique_ptr<BlockParser> parser_;  // holds the values
  std::array<std::vector<absl::string_view>, kNumItemFields> values_;
  std::vector<const char*> row_begins_;
  std::vector<const char*> row_ends_;
  std::deque<Skipped> skipped_;  // in order
  size_t at_ = 0;                // the next of its rows, without those skipped
  int64_t next_number_ = 1;
};

absl::Status CsvSource::Fill(size_t size) {
  size_t have = buffer_.size();
  if (have >= size || at_end_) return absl::OkStatus();
  buffer_.resize(size);
  while (have < size && !at_end_) {
    absl::StatusOr<size_t> n = bytes_->Read(buffer_.data() + have, size - have);
    if (!n.ok()) return std::move(n).status();
    have += *n;
    at_end_ = *n == 0;
  }
  buffer_.resize(have);
  return absl::OkStatus();
}

absl::StatusOr<std::string> CsvSource::TakeHeader() {
  const std::string delimiters(delimiter_ == '\0' ? kCsvDelimiters
                                                  : absl::string_view(&delimiter_, 1));
  for (size_t size = kBlockBytes;; size *= 2) {
    RETURN_IF_ERROR(Fill(size));
    absl::string_view text = buffer_;
    absl::ConsumePrefix(&text, "\xEF\xBB\xBF");
    text.remove_prefix(std::min(text.find_first_not_of("\r\n"), text.size()));
    CsvRecordScanner scanner(delimiters);
    size_t length = scanner.Scan(text);
    if (length == absl::string_view::npos && at_end_) {
      if (scanner.in_quotes()) {
        return absl::DataLossError(path_ + ": a quote in the header is never closed");
      }
      length = text.size();
    }
    if (length != absl::string_view::npos) {
      std::string header(text.substr(0, length));
      buffer_.erase(0, text.data() - buffer_.data() + length);
      return header;
    }
    if (size > max_row_bytes_) {
      return absl::InvalidArgumentError(
          absl::StrCat(path_, ": the header is longer than ", max_row_bytes_, " bytes"));
    }
  }
}

absl::Status CsvSource::ReadHeader(const ItemColumns& columns) {
  ASSIGN_OR_RETURN(const std::string header, TakeHeader());
  if (header.empty()) {
    return absl::InvalidArgumentError(path_ + ": expected a header of column names, got nothing");
  }
  if (const size_t invalid = FindInvalidUtf8(header); invalid != absl::string_view::npos) {
    return absl::InvalidArgumentError(absl::StrCat(path_, ": the header is not UTF-8 at byte ",
                                                   invalid + 1, "; save the table as UTF-8"));
  }
  if (delimiter_ == '\0') delimiter_ = DetectCsvDelimiter(header);
  options_.delimiter = delimiter_;
  options_.newlines_in_values = true;
  BlockParser parser(options_);
  uint32_t size = 0;
  if (const arrow::Status status = parser.ParseFinal(header, &size); !status.ok()) {
    return Corrupt(status);
  }
  std::vector<std::string> names;
  const arrow::Status visited =
      parser.VisitLastRow([&](const uint8_t* data, uint32_t length, bool, bool) {
        names.emplace_back(ViewOf(data, length));
        return arrow::Status::OK();
      });
  if (!visited.ok()) return Corrupt(visited);
  if (names.size() > kMaxColumns) {
    return absl::InvalidArgumentError(absl::StrCat(path_, ": expected at most ", kMaxColumns,
                                                   " columns, the header has ", names.size()));
  }
  absl::StatusOr<std::array<int, kNumItemFields>> places = columns.FindIn(names);
  if (!places.ok()) {
    return absl::Status(places.status().code(),
                        absl::StrCat(path_, ": ", places.status().message()));
  }
  places_ = *places;
  names_ = columns.names();
  width_ = static_cast<int>(names.size());
  options_.invalid_row_handler = [this](const InvalidRow& row) {
    skipped_.push_back(
        {row.number, absl::StrCat("expected ", row.expected_columns,
                                  " columns as in the header, got ", row.actual_columns)});
    return InvalidRowResult::Skip;
  };
  return absl::OkStatus();
}

absl::StatusOr<bool> CsvSource::Next(Row* row) {
  while (skipped_.empty() && at_ == row_begins_.size()) {
    ASSIGN_OR_RETURN(const bool more, ReadBlock());
    if (!more) return false;
  }
  row->number = next_number_++;
  row->is_blank = false;
  if (!skipped_.empty() && skipped_.front().number == row->number) {
    row->reject = Reject{"", std::move(skipped_.front().reason)};
    skipped_.pop_front();
    return true;
  }
  TakeRow(row);
  ++at_;
  return true;
}

void CsvSource::TakeRow(Row* row) const {
  row->reject.reset();
  row->values.fill({});
  if (static_cast<size_t>(row_ends_[at_] - row_begins_[at_]) > max_row_bytes_) {
    row->reject = Reject{"", absl::StrCat("row longer than ", max_row_bytes_, " bytes")};
    return;
  }
  for (int field = 0; field < kNumItemFields; ++field) {
    if (places_[field] < 0) continue;
    const absl::string_view text = values_[field][at_];
    if (const size_t invalid = FindInvalidUtf8(text); invalid != absl::string_view::npos) {
      row->reject = Reject{names_[field], absl::StrCat("not UTF-8 at byte ", invalid + 1)};
      return;
    }
    row->values[field] = {FieldValue::Kind::kString, text};
  }
}

// False at the end of the file. There may be no row in the block.
absl::StatusOr<bool> CsvSource::ReadBlock() {
  at_ = 0;
  row_begins_.clear();
  row_ends_.clear();
  RETURN_IF_ERROR(Fill(kBlockBytes));
  for (size_t size = kBlockBytes; !buffer_.empty(); size *= 2) {
    RETURN_IF_ERROR(Fill(size));
    const size_t before = buffer_.size();
    RETURN_IF_ERROR(ParseBlock(/*is_last_record=*/false));
    if (buffer_.size() < before) return true;
    // There is no whole record in the buffer.
    if (at_end_) {
      CsvRecordScanner scanner(absl::string_view(&delimiter_, 1));
      scanner.Scan(buffer_);
      if (scanner.in_quotes()) return UnclosedQuote();
      RETURN_IF_ERROR(ParseBlock(/*is_last_record=*/true));
      return true;
    }
    if (before > max_row_bytes_) {
      RETURN_IF_ERROR(DropRecord());
      return true;
    }
  }
  return false;
}

// Takes whole records from the buffer or, as the last record, all that is in it.
absl::Status CsvSource::ParseBlock(bool is_last_record) {
  parser_ = std::make_unique<BlockParser>(options_, width_, next_number_);
  uint32_t parsed = 0;
  const arrow::Status status =
      is_last_record ? parser_->ParseFinal(buffer_, &parsed) : parser_->Parse(buffer_, &parsed);
  if (!status.ok()) return Corrupt(status);
  buffer_.erase(0, parsed);
  return TakeColumns();
}

absl::Status CsvSource::TakeColumns() {
  const auto visit = [this](int column, auto&& take) -> absl::Status {
    const arrow::Status status =
        parser_->VisitColumn(column, [&](const uint8_t* data, uint32_t size, bool, bool) {
          take(ViewOf(data, size));
          return arrow::Status::OK();
        });
    return status.ok() ? absl::OkStatus() : Corrupt(status);
  };
  if (parser_->num_rows() == 0) return absl::OkStatus();
  for (int field = 0; field < kNumItemFields; ++field) {
    if (places_[field] < 0) continue;
    values_[field].clear();
    RETURN_IF_ERROR(
        visit(places_[field], [&](absl::string_view value) { values_[field].push_back(value); }));
  }
  // The values of a row lie side by side.
  RETURN_IF_ERROR(
      visit(0, [this](absl::string_view value) { row_begins_.push_back(value.data()); }));
  return visit(width_ - 1, [this](absl::string_view value) {
    row_ends_.push_back(value.data() + value.size());
  });
}

// Passes over the record at the beginning of the buffer, which is too long.
absl::Status CsvSource::DropRecord() {
  CsvRecordScanner scanner(absl::string_view(&delimiter_, 1));
  for (;;) {
    const size_t length = scanner.Scan(buffer_);
    if (length != absl::string_view::npos) {
      buffer_.erase(0, length);
      break;
    }
    buffer_.clear();
    if (at_end_) break;
    RETURN_IF_ERROR(Fill(kBlockBytes));
  }
  if (scanner.in_quotes()) return UnclosedQuote();
  skipped_.push_back({next_number_, absl::StrCat("row longer than ", max_row_bytes_, " bytes")});
  return absl::OkStatus();
}

absl::Status CsvSource::Corrupt(const arrow::Status& status) const {
  return absl::DataLossError(
      absl::StrCat(path_, ": from row ", next_number_, " on no CSV: ", status.message()));
}

absl::Status CsvSource::UnclosedQuote() const {
  return absl::DataLossError(absl::StrCat(
      path_, ": row ", next_number_, ": a quoted value is not closed before the end of the file"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<RowSource>> OpenCsvSource(const std::string& path,
                                                         std::unique_ptr<ByteSource> bytes,
                                                         const ItemColumns& columns,
                                                         const RowSourceOptions& options) {
  auto source = std::make_unique<CsvSource>(path, std::move(bytes), options);
  RETURN_IF_ERROR(source->ReadHeader(columns));
  return source;
}

}  // namespace pricer
