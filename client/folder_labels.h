#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "model/adapter_labels.h"

// Labels of an adapter folder without a server: what servers of the folder follow at their next
// look. Whether a version can be served shows only there.

namespace pricer {

// NotFound names the path where the folder has no such adapter.
absl::StatusOr<AdapterLabels> GetFolderLabels(const std::string& root, const std::string& adapter);

// NotFound where the folder has no such version with a marker; otherwise as AdapterLabels::Set and
// UpdateAdapterLabels.
absl::StatusOr<AdapterLabels> SetFolderLabel(const std::string& root, const std::string& adapter,
                                             const std::string& label, const LabelTarget& target);
absl::StatusOr<AdapterLabels> RemoveFolderLabel(const std::string& root, const std::string& adapter,
                                                const std::string& label);
// Points `stable` to a version and takes `canary` away where it leads there too, in one move,
// unless `check` has an error for the labels as they are then.
absl::StatusOr<AdapterLabels> PromoteFolderVersion(
    const std::string& root, const std::string& adapter, int64_t version,
    const std::function<absl::Status(const AdapterLabels&)>& check);
// The newest version with a marker; NotFound where there is none.
absl::StatusOr<int64_t> NewestFolderVersion(const std::string& root, const std::string& adapter);
// FailedPrecondition where the version to go back to is not there any more. `from` as
// AdapterLabels::RollBack's.
absl::StatusOr<AdapterLabels> RollBackFolderLabel(const std::string& root,
                                                  const std::string& adapter,
                                                  const std::string& label,
                                                  std::optional<int64_t> from);

}  // namespace pricer
