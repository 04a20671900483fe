#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace pricer {

// The checkpoints of one run on disk: <folder>/step-<n>/, each with a marker, written last, that
// holds the SHA-256 of every file; the folder is made where its parent is there. No torch. One
// process works on a folder at a time.
class CheckpointStore {
 public:
  // `keep` >= 1: how many of the newest stay.
  CheckpointStore(std::string folder, int64_t keep) : folder_(std::move(folder)), keep_(keep) {}

  // `write` fills an empty temporary directory with files that are flushed to the disk. They get
  // their marker and their name only when all of them are whole; then older checkpoints beyond
  // `keep` go. On an error, and after a crash at any point, the earlier checkpoints are as they
  // were. A whole checkpoint of that step that is already there stays as it is.
  absl::Status Save(int64_t step,
                    const std::function<absl::Status(const std::string& directory)>& write) const;

  struct Found {
    std::string directory;
    int64_t step = 0;
    // Newer ones that are not whole, each with the reason.
    std::vector<std::string> skipped;
  };
  // The newest whole one, all its hashes checked. NotFound names the folder, and what was skipped.
  absl::StatusOr<Found> FindNewest() const;

 private:
  std::string folder_;
  int64_t keep_ = 1;
};

}  // namespace pricer
