#include "base/temporary_directory.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <filesystem>
#include <random>
#include <system_error>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"

namespace pricer {
namespace {

// Whoever fills a directory writes to it more often than this.
constexpr absl::Duration kAbandoned = absl::Hours(1);

// Of what is gone: never.
absl::Time LastChanged(const std::string& path) {
  struct stat info {};
  if (lstat(path.c_str(), &info) != 0) return absl::InfinitePast();
  return absl::TimeFromTimespec(info.st_mtim);
}

}  // namespace

absl::StatusOr<TemporaryDirectory> TemporaryDirectory::Create(const std::string& parent) {
  // Unique in the process by the count, among processes and machines by the random part.
  static std::atomic<uint64_t> count{0};
  std::random_device random;
  const uint64_t tag = static_cast<uint64_t>(random()) << 32 | random();
  const std::string path = absl::StrCat(parent, "/", kPrefix, getpid(), "-", count++, "-",
                                        absl::Hex(tag, absl::kZeroPad16));
  constexpr mode_t kMode = 0755;
  if (mkdir(path.c_str(), kMode) != 0) return ErrnoStatus("cannot make directory", path);
  return TemporaryDirectory(path);
}

bool TemporaryDirectory::IsAbandoned(const std::string& path, absl::Time now) {
  namespace fs = std::filesystem;
  std::error_code error;
  if (!absl::StartsWith(fs::path(path).filename().string(), kPrefix) ||
      !fs::is_directory(fs::symlink_status(path, error))) {
    return false;
  }
  absl::Time last = LastChanged(path);
  fs::directory_iterator entry(path, error);
  for (; !error && entry != fs::directory_iterator(); entry.increment(error)) {
    last = std::max(last, LastChanged(entry->path().string()));
  }
  return now - last >= kAbandoned;
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;  // nothing can be done about what cannot be deleted; readers ignore it
  if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
}

}  // namespace pricer
