#pragma once

#include <cstdint>

#include "absl/strings/string_view.h"

namespace pricer {

// CRC-32C (Castagnoli), as RFC 3720 section 12.1 defines it: some hundred megabytes a second, which
// suits small records.
uint32_t Crc32c(absl::string_view bytes);

}  // namespace pricer
