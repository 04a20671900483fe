#pragma once

#include <memory>

#include "catalog/byte_source.h"
#include "catalog/row_source.h"

namespace pricer {

// One JSON object a line (JsonRowScanner); a line that is none is a row with a reject.
std::unique_ptr<RowSource> OpenJsonLinesSource(std::unique_ptr<ByteSource> bytes,
                                               const ItemColumns& columns,
                                               const RowSourceOptions& options);

}  // namespace pricer
