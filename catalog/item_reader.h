#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "catalog/item.h"
#include "catalog/item_parser.h"
#include "catalog/rejects_file.h"
#include "catalog/row_source.h"

namespace pricer {

struct ItemReaderOptions {
  // From our field names to the file's columns; see ItemColumns::Create.
  std::map<std::string, std::string> columns;
  // Of the run: rows in another currency are rejected.
  std::string currency = "USD";
  bool price_required = true;
  // Also read prompt and completion; see ItemRules.
  bool pairs = false;
  // 0 to 1. See ItemReader::Next for when the reading stops.
  double max_reject_share = 0.01;
  // JSON lines {"file","row","field","reason"}; rows count as in Row, field is the column as the
  // file calls it, or empty where the whole row is meant. Empty path: rejects are only counted. A
  // file of an earlier run is removed at Open; without rejects there is no file. One reader per
  // path.
  std::string rejects_path;
  // Longer lines, or rows of a table, are rejected.
  size_t max_line_bytes = size_t{1} << 20;
  // Of CSV: any ASCII character but a quote or a line end. '\0': comma, semicolon or tab, as the
  // header has it.
  char csv_delimiter = '\0';

  absl::Status Validate() const;
};

// Reads the items of a JSONL, CSV or Parquet file, the first two also gzip or zstd, in constant
// memory. Which format: OpenRowSource; what a good row is: ItemParser::Parse. One thread.
class ItemReader {
 public:
  // InvalidArgument for wrong options or a table without the columns; else what opening the file
  // gave.
  static absl::StatusOr<std::unique_ptr<ItemReader>> Open(const std::string& path,
                                                          const ItemReaderOptions& options);

  // Fills `item` (reusing its memory) with the next good row and returns true; false at the end.
  // Rejected rows go to the rejects file. FailedPrecondition, naming that file and the first
  // reject, if more than max_reject_share of the rows was rejected: judged at the end of the file,
  // and before it as soon as rejects > max(100, max_reject_share * rows so far), so that a wrong
  // mapping does not cost a pass over a huge file. DataLoss if the file is broken. An error is
  // final.
  absl::StatusOr<bool> Next(Item* item);

  // The caller cannot use a row that Next has returned, the one of this number: it is rejected like
  // the others. May find too many, as Next does.
  absl::Status RejectRow(int64_t row, const Reject& reject);

  // Call when no more rows are wanted: writes out the rejects and judges their share, as the end of
  // the file does. A file that was read in part is judged as if at least 100 rows had been read, so
  // that one bad row among the first few is not held against it.
  absl::Status Finish();

  // The next row, good or not: `reject` is empty or says why `item` is unspecified but for its id,
  // which is empty where none could be read. A blank line is a reject here. False at the end.
  // Counts rejects but neither writes nor limits them: for callers that answer every row in its
  // place. Do not mix with Next.
  absl::StatusOr<bool> NextRow(Item* item, std::optional<Reject>* reject);

  // Passes over a row that NextRow would give, whatever is in it; false at the end.
  absl::StatusOr<bool> SkipRow();

  // Row::number of the latest row that was not passed over; blank lines of JSONL that Next passes
  // over are counted here.
  int64_t row() const { return row_; }
  // Rows so far, rejected and passed over ones included, blank lines that Next passes over not.
  int64_t rows() const { return rows_; }
  int64_t rejects() const { return rejects_; }
  double fraction() const { return source_->fraction(); }  // RowSource's

 private:
  ItemReader(const std::string& path, const ItemReaderOptions& options,
             std::unique_ptr<RowSource> source, ItemParser parser, RejectsFile rejects_file);
  absl::StatusOr<bool> ReadRow(bool skip_blank, Item* item, std::optional<Reject>* reject);
  absl::StatusOr<bool> NextGoodRow(Item* item);
  absl::Status NoteReject(int64_t row, const Reject& reject);
  // Makes an error final.
  absl::Status Remember(absl::Status status);
  double AllowedRejects(int64_t rows) const;
  absl::Status TooManyRejects(absl::string_view when) const;

  const std::string path_;
  const ItemReaderOptions options_;
  const std::unique_ptr<RowSource> source_;
  ItemParser parser_;
  RejectsFile rejects_file_;
  Row current_;
  std::string first_reject_;
  absl::Status failure_;
  bool at_end_ = false;
  int64_t row_ = 0;
  int64_t rows_ = 0;
  int64_t rejects_ = 0;
};

struct ReadSummary {
  int64_t rows = 0;
  int64_t rejects = 0;
};

// All items of a file. `summary` may be null; it is filled in on failure too.
absl::StatusOr<std::vector<Item>> ReadItems(const std::string& path,
                                            const ItemReaderOptions& options,
                                            ReadSummary* summary = nullptr);

}  // namespace pricer
