#pragma once

#include <cstddef>

#include "absl/strings/string_view.h"

namespace pricer {

// Offset of the first byte that does not begin a well-formed UTF-8 sequence (Unicode 15, table 3-7:
// no overlong forms, no surrogates, nothing above U+10FFFF), or absl::string_view::npos.
size_t FindInvalidUtf8(absl::string_view text);

inline bool IsValidUtf8(absl::string_view text) {
  return FindInvalidUtf8(text) == absl::string_view::npos;
}

// The longest prefix of at most `max_bytes` bytes that ends between two characters. `text` is valid
// UTF-8.
absl::string_view Utf8Prefix(absl::string_view text, size_t max_bytes);

}  // namespace pricer
