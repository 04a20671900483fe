#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

// The folder ADAPTERS/<name>/<version>/ on disk: how versions appear in it, and how its files are
// read. No torch.

namespace pricer {

inline constexpr absl::string_view kAdapterConfigFile = "adapter_config.json";
inline constexpr absl::string_view kAdapterTensorsFile = "adapter_model.safetensors";
inline constexpr absl::string_view kManifestFile = "pricer.json";
// Written last; a directory without it does not exist for readers.
inline constexpr absl::string_view kReadyFile = "_READY";

struct PublishedVersion {
  std::string directory;
  int64_t version = 0;
};

// Fills an empty directory and returns what the marker will hold; every file that it writes must be
// flushed to the disk.
using FillVersion = std::function<absl::StatusOr<std::string>(const std::string& directory)>;

// Publishes the next version of `name` under `root`, both made if absent. Steps, each
// atomic: (1) write into `<root>/<name>/.tmp-...`; (2) claim the first free number above all
// existing ones by exclusive mkdir of `<root>/<name>/<version>`; (3) rename the temporary directory
// over that empty one; (4) write the marker. Concurrent publishers, in one process or on several
// machines, get different numbers. On an error no directory is left behind; a crash leaves a
// temporary directory, an empty one or a whole one without a marker, all of which readers ignore.
absl::StatusOr<PublishedVersion> PublishVersion(const std::string& root, const std::string& name,
                                                const FillVersion& write);

// The same under a number that is given: a copy of a version from elsewhere. What stands there
// without a marker is what a copy that was killed has left, and is replaced, so one process at a
// time copies into a folder. AlreadyExists where there is a marker.
absl::StatusOr<PublishedVersion> PlaceVersion(const std::string& root, const std::string& name,
                                              int64_t version, const FillVersion& write);

// OK where `path`, with all symbolic links followed, lies in `folder`, with all of its own
// followed; DataLoss names both where it does not.
absl::Status CheckInsideFolder(const std::string& path, const std::string& folder);

// The bytes of a regular file inside `folder`. DataLoss where a link leads out of the folder, where
// it is no regular file, or where it has more than `max_bytes`.
absl::StatusOr<std::string> ReadAdapterFile(const std::string& folder, absl::string_view name,
                                            int64_t max_bytes);

}  // namespace pricer
