#include "catalog/quote.h"

#include <cstddef>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/utf8.h"

namespace pricer {

std::string Quote(absl::string_view text) {
  constexpr size_t kMaxBytes = 40;
  const absl::string_view head = Utf8Prefix(text, kMaxBytes);
  return absl::StrCat("\"", absl::Utf8SafeCEscape(head), head.size() < text.size() ? "..." : "",
                      "\"");
}

}  // namespace pricer
