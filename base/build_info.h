#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace pricer {

// Of the release, "1.2.3".
absl::string_view BuildVersion();
// Commit that this program was built from, or "unknown".
absl::string_view BuildCommit();

// What --version prints: "pricer-server 1.2.3 (0123456789ab)".
std::string VersionText(absl::string_view program);

}  // namespace pricer
