#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/loaded_adapter.h"

// Reads an adapter folder, <root>/<name>/<version>/. A version without _READY does not exist.
// Nothing here keeps state.

namespace pricer {

// Which directory a path leads to.
struct DirectoryIdentity {
  uint64_t device = 0;
  uint64_t inode = 0;

  bool operator==(const DirectoryIdentity&) const = default;
};

// One look at the folder.
struct FolderScan {
  DirectoryIdentity root;
  // Versions with a marker.
  std::set<AdapterKey> versions;
  // Names whose versions could not all be told, for lack of a right or by an I/O error, and why:
  // what is missing of them in `versions` is not known to be gone.
  std::map<std::string, std::string> unreadable_names;
  // Entries of the root that are no adapter's name.
  std::vector<std::string> foreign_entries;

  bool MayHold(const AdapterKey& key) const {
    return versions.count(key) > 0 || unreadable_names.count(key.name) > 0;
  }
};

// Unavailable names the path and the reason where the root cannot be read or was exchanged while it
// was.
absl::StatusOr<FolderScan> ScanAdapterFolder(const std::string& root);

std::string AdapterDirectory(const std::string& root, const AdapterKey& key);

// Changes when a file of the version does: names, sizes and times of modification, and the content
// of the marker.
std::string VersionSignature(const std::string& directory);

}  // namespace pricer
