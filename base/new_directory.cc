#include "base/new_directory.h"

#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace pricer {
namespace {

namespace fs = std::filesystem;

absl::Status CheckNewOrEmpty(const fs::path& target) {
  std::error_code error;
  if (!fs::exists(target, error)) return absl::OkStatus();
  const bool is_directory = fs::is_directory(target, error);
  if (is_directory && fs::is_empty(target, error)) return absl::OkStatus();
  return absl::AlreadyExistsError(
      absl::StrCat(target.string(), ": expected a directory that is new or empty; ",
                   is_directory ? "there is something in it" : "it is a file"));
}

}  // namespace

absl::StatusOr<NewDirectory> NewDirectory::Create(const std::string& directory) {
  fs::path target = fs::path(directory).lexically_normal();
  if (!target.has_filename()) target = target.parent_path();
  if (target.empty() || target.filename() == ".." || target.filename() == ".") {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", directory, "\": expected the name of a directory to make"));
  }
  RETURN_IF_ERROR(CheckNewOrEmpty(target));
  NewDirectory created;
  created.target_ = target.string();
  static std::atomic<int64_t> count = 0;
  created.temporary_ = absl::StrCat(created.target_, ".tmp.", getpid(), ".", count++);
  std::error_code ignored;  // what cannot be removed shows when it is written to
  fs::remove_all(created.temporary_, ignored);
  RETURN_IF_ERROR(MakeDirectories(created.temporary_));
  return created;
}

NewDirectory::NewDirectory(NewDirectory&& other) noexcept
    : target_(std::move(other.target_)), temporary_(std::exchange(other.temporary_, {})) {}

NewDirectory::~NewDirectory() {
  std::error_code ignored;
  if (!temporary_.empty()) fs::remove_all(temporary_, ignored);
}

std::string NewDirectory::File(absl::string_view name) const {
  return absl::StrCat(temporary_, "/", name);
}

absl::Status NewDirectory::Commit() {
  RETURN_IF_ERROR(SyncDirectory(temporary_));
  if (rename(temporary_.c_str(), target_.c_str()) != 0) {
    return ErrnoStatus("cannot rename the finished directory into place", target_);
  }
  temporary_.clear();
  return SyncDirectory(fs::path(target_).parent_path().string());
}

}  // namespace pricer
