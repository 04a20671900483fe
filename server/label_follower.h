#pragma once

#include <map>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "base/mutex.h"
#include "server/adapter_folder.h"
#include "server/adapter_registry.h"

namespace pricer {

// Makes the registry follow the labels.json files of an adapter folder. A file that cannot be read
// changes nothing but the error that is shown; one that two looks in a row did not find is gone.
// Thread-safe.
class LabelFollower {
 public:
  // `registry` must outlive the follower.
  LabelFollower(std::string root, AdapterRegistry* registry)
      : root_(std::move(root)), registry_(registry) {}

  // Reads the files that have changed since they were last read. REQUIRES: the scan is of the
  // folder as it is now.
  void Poll(const FolderScan& scan);

  // Reads one file now, so that what was just written to it holds when this returns.
  void Refresh(const std::string& name);

 private:
  struct Known {
    std::string signature;  // of the file when it was read; empty = to be read again
    std::string error;
    int absent_polls = 0;
  };

  void Look(const std::string& name) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Read(const std::string& name, const std::string& signature)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::string root_;
  AdapterRegistry* const registry_;

  // Held while a file is read, so that what is told to the registry last was read last.
  Mutex mutex_;
  std::map<std::string, Known> known_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace pricer
