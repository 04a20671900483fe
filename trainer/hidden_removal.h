#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

// Removing directories that others may be looking at.

namespace pricer {

// What a hidden directory's name begins with.
inline constexpr absl::string_view kHiddenPrefix = ".pruned-";

// Names of the entries, sorted.
absl::StatusOr<std::vector<std::string>> EntriesOf(const std::string& directory);

// Bytes of all regular files; links are not followed. What cannot be read counts as nothing.
int64_t TreeBytes(const std::string& directory);

// Renames the directory to a hidden sibling, which no reader looks for, and returns that path: it
// is gone for all of them at once. A crash leaves it whole under the one name or the other.
absl::StatusOr<std::string> Hide(const std::string& directory);

// Deletes with all that is in it. Fine where another process did so.
absl::Status RemoveTree(const std::string& path);

}  // namespace pricer
