#pragma once

#include <cstdint>

#include "absl/strings/string_view.h"

namespace pricer {

// Values and bytes of the unit that a type is stored in.
struct GgmlUnit {
  int64_t values = 0;
  int64_t bytes = 0;
};

// {0, 0} for a type that is not read. `type` is ggml's number.
GgmlUnit GgmlUnitOf(uint32_t type);

// ggml's name of a type, for messages; "unknown" where the number is not known.
absl::string_view GgmlTypeName(uint32_t type);

}  // namespace pricer
