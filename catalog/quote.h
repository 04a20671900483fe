#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace pricer {

// Text of a file in quotes, short and printable enough for a message. `text` is UTF-8.
std::string Quote(absl::string_view text);

}  // namespace pricer
