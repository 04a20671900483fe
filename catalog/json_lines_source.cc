#include "catalog/json_lines_source.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "catalog/json_row.h"
#include "catalog/line_reader.h"

namespace pricer {
namespace {

bool IsBlankLine(absl::string_view line) {
  return std::all_of(line.begin(), line.end(), absl::ascii_isspace);
}

class JsonLinesSource final : public RowSource {
 public:
  JsonLinesSource(std::unique_ptr<ByteSource> bytes, const ItemColumns& columns,
                  const RowSourceOptions& options)
      : max_line_bytes_(options.max_row_bytes),
        lines_(std::move(bytes), options.max_row_bytes),
        scanner_(columns) {}

  absl::StatusOr<bool> Next(Row* row) override {
    LineReader::Line line;
    ASSIGN_OR_RETURN(const bool more, lines_.Next(&line));
    if (!more) return false;
    row->number = line.number;
    row->is_blank = !line.too_long && IsBlankLine(line.text);
    if (row->is_blank) {
      row->reject = Reject{"", "blank line"};
    } else if (line.too_long) {
      row->reject = Reject{"", absl::StrCat("line longer than ", max_line_bytes_, " bytes")};
    } else {
      row->reject = scanner_.Scan(line.text, &row->values);
    }
    return true;
  }
  absl::StatusOr<bool> Skip() override {
    LineReader::Line line;
    return lines_.Next(&line);
  }
  double fraction() const override { return lines_.fraction(); }

 private:
  const size_t max_line_bytes_;
  LineReader lines_;
  JsonRowScanner scanner_;
};

}  // namespace

std::unique_ptr<RowSource> OpenJsonLinesSource(std::unique_ptr<ByteSource> bytes,
                                               const ItemColumns& columns,
                                               const RowSourceOptions& options) {
  return std::make_unique<JsonLinesSource>(std::move(bytes), columns, options);
}

}  // namespace pricer
