#pragma once

#include "absl/status/status.h"
#include "trainer/prune.h"

namespace pricer {

// Prunes options.runs; decisions and single failures go into `outcome`.
absl::Status PruneRuns(const PruneOptions& options, PruneOutcome* outcome);

}  // namespace pricer
