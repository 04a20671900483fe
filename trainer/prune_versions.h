#pragma once

#include <set>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "trainer/prune.h"

namespace pricer {

// Real paths of the versions that links in the folder of adapters lead to. What cannot be looked at
// is passed over.
std::set<std::string> LinkedVersions(const std::string& adapters);

// Prunes one adapter's folder; decisions and single failures go into `outcome`. An error means that
// nothing was removed.
absl::Status PruneVersions(const std::string& folder, const PruneOptions& options,
                           const std::set<std::string>& linked, absl::Time now,
                           PruneOutcome* outcome);

}  // namespace pricer
