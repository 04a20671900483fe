#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace pricer {

struct AdapterSyncOptions {
  // Places of adapters, NAME/VERSION/...: folders, or objects below s3://BUCKET/PREFIX
  // (catalog/object_store.h); one of them is a folder.
  std::string from;
  std::string to;
  // Of one adapter alone; "" = of all.
  std::string name = {};
  // Whether versions that are not in `from` are removed from `to`.
  bool remove = false;

  // InvalidArgument names what `pricer adapters sync` was given.
  absl::Status Validate() const;
};

struct AdapterSyncReport {
  int versions = 0;  // in `from`
  int copied = 0;
  int removed = 0;
  int labels = 0;  // files of labels that were copied
  // What could not be copied, and why; the rest was.
  std::vector<absl::Status> failures;
};

// Brings `to` up to `from`: copies versions that have a marker, each with its marker last, then the
// labels of those adapters, as they were before the versions were looked for. So servers that poll
// `to` see a version when it is whole, and a label when what it points to is there, unless that is
// nowhere. Versions do not change: one whose files have other sizes in `to` is a failure. Labels
// are copied where their generation is higher than in `to`. What a killed copy has left of such an
// adapter in a folder is removed by one that comes an hour later. A label in `to` keeps its version
// from being removed, and nothing is removed where `from` has no version at all. Other processes
// may read `to` meanwhile, and write to `from`; one at a time copies to `to`, and nobody publishes
// there.
//
// An error where one of the places cannot be listed; Cancelled = stop(), which is asked before each
// version. `say` gets a line for what was done.
absl::StatusOr<AdapterSyncReport> SyncAdapters(
    const AdapterSyncOptions& options, const std::function<bool()>& stop,
    const std::function<void(const std::string& line)>& say);

}  // namespace pricer
