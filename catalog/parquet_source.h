#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "catalog/row_source.h"

namespace pricer {

// A Parquet file, in pieces of a thousand rows. Columns of strings (or bytes that are UTF-8),
// integers, floats, decimals and booleans, dictionaries of them too, give the values that the same
// column has in JSON; a float has the fewest digits that read back as the same float; a null is
// absent. Columns that are not read may be of any type.
//
// Rejected: values that are read and not UTF-8, rows of more than options.max_row_bytes.
// InvalidArgument if a column that is read is missing or of another type (lists and structs, say),
// or if the file is no regular one; DataLoss for what is no Parquet, compressed as a whole or
// damaged.
absl::StatusOr<std::unique_ptr<RowSource>> OpenParquetSource(const std::string& path,
                                                             const ItemColumns& columns,
                                                             const RowSourceOptions& options);

}  // namespace pricer
