#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/statusor.h"

namespace pricer {

// The versions that <adapter>/labels.json names, each with the reason that keeps it: "label
// stable", or "labels.json" where it stands in the history of moves or in a field that this build
// does not know, of which every whole number counts. Empty where there is no such file. DataLoss
// and Unimplemented (another major format_version) name the file and the field.
absl::StatusOr<std::map<int64_t, std::string>> LabelledVersions(
    const std::string& adapter_directory);

}  // namespace pricer
