#include "base/temporary_directory.h"

#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <random>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "base/file.h"

namespace pricer {

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

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;  // nothing can be done about what cannot be deleted; readers ignore it
  if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
}

}  // namespace pricer
