#pragma once

#include <optional>
#include <string>

#include "absl/status/statusor.h"

// What runs leave behind in RUNS/<name>-<n>/, for whoever comes after them.

namespace pricer {

// "shop" of "shop-12"; empty where it is no run's name.
std::string NameOfRun(const std::string& entry);

// What a run writes when its adapter is published.
std::string PublishedFile(const std::string& run);
bool IsPublished(const std::string& run);

std::string CheckpointsOf(const std::string& run);
// Not published, and with a checkpoint to go on from.
bool CanBeResumed(const std::string& run);

// The directory of the run of that name with the highest number; nothing where there is none.
absl::StatusOr<std::optional<std::string>> LatestRun(const std::string& runs,
                                                     const std::string& name);

}  // namespace pricer
