#pragma once

#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

// How the directories of an adapter folder are named: <name>/<version>/. No torch.

namespace pricer {

// `[a-z0-9][a-z0-9._-]{0,62}` and not "base"; InvalidArgument names the rule.
absl::Status ValidateAdapterName(absl::string_view name);

// Decimal integer >= 1 without leading zeros.
std::optional<int64_t> ParseAdapterVersion(absl::string_view text);

}  // namespace pricer
