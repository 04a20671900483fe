#include "trainer/hidden_removal.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace pricer {
namespace {

namespace fs = std::filesystem;

absl::Status Failed(const std::error_code& error, absl::string_view action,
                    const std::string& path) {
  errno = error.value();
  return ErrnoStatus(action, path);
}

}  // namespace

absl::StatusOr<std::vector<std::string>> EntriesOf(const std::string& directory) {
  std::vector<std::string> names;
  std::error_code error;
  fs::directory_iterator entries(directory, error);
  for (; !error && entries != fs::directory_iterator(); entries.increment(error)) {
    names.push_back(entries->path().filename().string());
  }
  if (error) return Failed(error, "cannot list", directory);
  std::sort(names.begin(), names.end());
  return names;
}

int64_t TreeBytes(const std::string& directory) {
  int64_t bytes = 0;
  std::error_code error;
  if (fs::is_symlink(directory, error)) return 0;
  fs::recursive_directory_iterator entries(directory, error);
  for (; !error && entries != fs::recursive_directory_iterator(); entries.increment(error)) {
    std::error_code ignored;
    if (entries->is_symlink(ignored) || !entries->is_regular_file(ignored)) continue;
    const auto size = entries->file_size(ignored);
    if (!ignored) bytes += static_cast<int64_t>(size);
  }
  return bytes;
}

absl::StatusOr<std::string> Hide(const std::string& directory) {
  static std::atomic<uint64_t> count{0};
  const fs::path path(directory);
  const std::string parent = path.parent_path().string();
  // Versions are numbered up and runs are locked, so the process makes the name unique.
  const std::string hidden = absl::StrCat(parent, "/", kHiddenPrefix, path.filename().string(), "-",
                                          getpid(), "-", count++);
  if (rename(directory.c_str(), hidden.c_str()) != 0) {
    return ErrnoStatus("cannot rename to remove it", directory);
  }
  RETURN_IF_ERROR(SyncDirectory(parent));
  return hidden;
}

absl::Status RemoveTree(const std::string& path) {
  std::error_code error;
  fs::remove_all(path, error);
  if (!error || error == std::errc::no_such_file_or_directory) return absl::OkStatus();
  return Failed(error, "cannot remove", path);
}

}  // namespace pricer
