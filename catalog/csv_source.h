#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "catalog/byte_source.h"
#include "catalog/row_source.h"

namespace pricer {

// A table as text (RFC 4180): a header of column names, then one record a row, its end a line feed,
// a carriage return or both. A value that begins with a double quote may hold delimiters, line ends
// and doubled quotes; a quote elsewhere in a value stands for itself. All values are strings; an
// empty one is the same as an absent one. A byte order mark and empty lines are passed over.
//
// Without options.csv_delimiter the delimiter is the one of comma, semicolon and tab that stands
// most often outside quotes in the header; of equals the first in this order.
//
// Rejected: rows that are not as wide as the header, values that are read and not UTF-8, rows of
// more than options.max_row_bytes. A quote that is never closed is DataLoss: it has swallowed rows.
// InvalidArgument for a header that is missing, too long or not UTF-8 or that lacks a column.
absl::StatusOr<std::unique_ptr<RowSource>> OpenCsvSource(const std::string& path,
                                                         std::unique_ptr<ByteSource> bytes,
                                                         const ItemColumns& columns,
                                                         const RowSourceOptions& options);

}  // namespace pricer
