#include "client/folder_labels.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <system_error>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "model/adapter_directory.h"
#include "model/adapter_name.h"

namespace pricer {
namespace {

namespace fs = std::filesystem;

LabelAuthor Author() {
  const char* const user = std::getenv("USER");
  return {user != nullptr && *user != '\0' ? absl::StrCat("user ", user)
                                           : absl::StrCat("uid ", getuid()),
          absl::Now()};
}

absl::StatusOr<std::string> DirectoryOf(const std::string& root, const std::string& adapter) {
  RETURN_IF_ERROR(ValidateAdapterName(adapter));
  std::string directory = absl::StrCat(root, "/", adapter);
  std::error_code error;
  if (fs::is_directory(directory, error)) return directory;
  return absl::NotFoundError(absl::StrCat(directory, ": expected the directory of an adapter, ",
                                          error ? error.message() : "got something else"));
}

absl::Status CheckVersion(const std::string& directory, int64_t version) {
  const std::string marker = absl::StrCat(directory, "/", version, "/", kReadyFile);
  std::error_code error;
  if (fs::exists(marker, error)) return absl::OkStatus();
  return absl::NotFoundError(
      absl::StrCat(marker, ": there is no such version, or it is not ready"));
}

// What `stable` follows until it is set, as far as that shows in the folder.
std::optional<int64_t> NewestVersion(const std::string& directory) {
  std::optional<int64_t> newest;
  std::error_code error;
  fs::directory_iterator entries(directory, error);
  for (; !error && entries != fs::directory_iterator(); entries.increment(error)) {
    const std::optional<int64_t> version = ParseAdapterVersion(entries->path().filename().string());
    if (!version.has_value() || !CheckVersion(directory, *version).ok()) continue;
    newest = std::max(newest.value_or(0), *version);
  }
  return newest;
}

}  // namespace

absl::StatusOr<AdapterLabels> GetFolderLabels(const std::string& root, const std::string& adapter) {
  ASSIGN_OR_RETURN(const std::string directory, DirectoryOf(root, adapter));
  return ReadAdapterLabels(directory);
}

absl::StatusOr<AdapterLabels> SetFolderLabel(const std::string& root, const std::string& adapter,
                                             const std::string& label, const LabelTarget& target) {
  ASSIGN_OR_RETURN(const std::string directory, DirectoryOf(root, adapter));
  RETURN_IF_ERROR(ValidateLabelTarget(label, target));
  RETURN_IF_ERROR(CheckVersion(directory, target.version));
  return UpdateAdapterLabels(directory, [&](AdapterLabels* labels) {
    return labels->Set(label, target, NewestVersion(directory), Author());
  });
}

absl::StatusOr<AdapterLabels> PromoteFolderVersion(
    const std::string& root, const std::string& adapter, int64_t version,
    const std::function<absl::Status(const AdapterLabels&)>& check) {
  ASSIGN_OR_RETURN(const std::string directory, DirectoryOf(root, adapter));
  RETURN_IF_ERROR(CheckVersion(directory, version));
  return UpdateAdapterLabels(directory, [&](AdapterLabels* labels) -> absl::Status {
    RETURN_IF_ERROR(check(*labels));
    const LabelAuthor author = Author();
    RETURN_IF_ERROR(labels->Set(std::string(kStableLabel), {.version = version},
                                NewestVersion(directory), author));
    const auto canary = labels->labels.find(std::string(kCanaryLabel));
    if (canary == labels->labels.end() || canary->second.version != version) {
      return absl::OkStatus();
    }
    return labels->Remove(std::string(kCanaryLabel), author);
  });
}

absl::StatusOr<int64_t> NewestFolderVersion(const std::string& root, const std::string& adapter) {
  ASSIGN_OR_RETURN(const std::string directory, DirectoryOf(root, adapter));
  const std::optional<int64_t> newest = NewestVersion(directory);
  if (newest.has_value()) return *newest;
  return absl::NotFoundError(absl::StrCat(directory, ": no version is ready in it"));
}

absl::StatusOr<AdapterLabels> RemoveFolderLabel(const std::string& root, const std::string& adapter,
                                                const std::string& label) {
  ASSIGN_OR_RETURN(const std::string directory, DirectoryOf(root, adapter));
  return UpdateAdapterLabels(
      directory, [&](AdapterLabels* labels) { return labels->Remove(label, Author()); });
}

absl::StatusOr<AdapterLabels> RollBackFolderLabel(const std::string& root,
                                                  const std::string& adapter,
                                                  const std::string& label,
                                                  std::optional<int64_t> from) {
  ASSIGN_OR_RETURN(const std::string directory, DirectoryOf(root, adapter));
  const auto check = [&](int64_t version) { return CheckVersion(directory, version); };
  return UpdateAdapterLabels(directory, [&](AdapterLabels* labels) {
    return labels->RollBack(label, from, check, Author());
  });
}

}  // namespace pricer
