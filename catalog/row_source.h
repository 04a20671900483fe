#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "catalog/item_fields.h"

namespace pricer {

// A row of a file, read but not judged.
struct Row {
  // From 1. JSON lines: of the line. CSV: of the record, without the header and empty lines.
  int64_t number = 0;
  // The texts are UTF-8 and hold until the next row.
  FieldValues values;
  // Why there are no values.
  std::optional<Reject> reject;
  // A line of white space alone, which is a reject.
  bool is_blank = false;
};

// The rows of a file from first to last, in constant memory. One thread.
class RowSource {
 public:
  virtual ~RowSource() = default;

  // False at the end. DataLoss, naming the file and as well as possible the row, if the file is
  // broken; an error is final.
  virtual absl::StatusOr<bool> Next(Row* row) = 0;

  // Passes over the next row, which is not looked into where that saves time; otherwise as Next.
  virtual absl::StatusOr<bool> Skip() {
    Row row;
    return Next(&row);
  }

  // About how much of the file has been read, 0 to 1; 0 where its length is not known.
  virtual double fraction() const = 0;
};

struct RowSourceOptions {
  // Longer rows are rejected.
  size_t max_row_bytes = size_t{1} << 20;
  // '\0': as the header has it; see csv_source.h.
  char csv_delimiter = '\0';
};

// Opens a file, or an object (object_store.h), by its name: .jsonl, .ndjson, .json (JSON lines),
// .csv, .tsv, each also with .gz or .zst behind it, and .parquet. A file of another name is Parquet
// if it begins with PAR1, else JSON lines if its first character is { or [ or if it is empty, else
// CSV. InvalidArgument if a table lacks a column (ItemColumns::FindIn); Unimplemented for tables in
// a build without PRICER_ARROW.
absl::StatusOr<std::unique_ptr<RowSource>> OpenRowSource(const std::string& path,
                                                         const ItemColumns& columns,
                                                         const RowSourceOptions& options);

}  // namespace pricer
