#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

// Removes old versions of adapters and old tuning runs: what `pricer-trainer prune` does. No torch.

namespace pricer {

struct PruneOptions {
  std::string adapters;  // the folder of adapters
  std::string name;      // of one adapter, and of its runs; empty = all
  std::string runs;      // the folder of runs; empty = none are removed
  int64_t keep = 0;      // how many of the newest stay, of versions and of runs
  bool dry_run = false;  // decides alone

  // InvalidArgument names the option.
  absl::Status Validate() const;
};

// About one directory: that it went, or why it stayed though it is old.
struct PruneDecision {
  std::string path;
  bool removed = false;  // or would be, in a dry run
  std::string reason;
  int64_t bytes = 0;  // of what was removed
};

struct PruneOutcome {
  std::vector<PruneDecision> decisions;
  // Adapters that were not touched, and directories that could not be removed, each with its path.
  std::vector<std::string> failures;

  int64_t freed_bytes() const;
};

// Of each adapter goes, oldest first, every version that is older than the newest `keep` complete
// ones: those that have a marker and whose files are the ones that pricer.json lists. Never one
// that labels.json names, as a label or in its history, or that a link in the folder leads to. An
// adapter whose labels.json cannot be read is not touched: a failure names it. Versions without a
// marker go when they are older and untouched for a day, since somebody may be publishing them;
// temporary directories by TemporaryDirectory::IsAbandoned.
//
// Runs are sorted by the last line of their metrics, those of each name apart. The newest `keep`
// stay, and of the others one that a process has locked, one that holds an adapter which could not
// be published, and the newest one that can be resumed. What is not a run (no file `lock`) is left
// alone.
//
// Every directory is first renamed to a hidden one, so that a server that looks at the folder, and
// a crash at any point, find it whole or not at all. What an earlier call left of that is removed.
// Labels that are moved meanwhile are seen: the version gets its name back. NotFound where a folder
// or the named adapter is not there.
absl::StatusOr<PruneOutcome> Prune(const PruneOptions& options, absl::Time now);

}  // namespace pricer
