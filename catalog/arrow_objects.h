#pragma once

#include <arrow/io/interfaces.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace pricer {

// An object (object_store.h) to read at random, as Parquet is.
absl::StatusOr<std::shared_ptr<arrow::io::RandomAccessFile>> OpenObjectAtRandom(
    const std::string& object);

}  // namespace pricer
