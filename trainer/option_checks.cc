#include "trainer/option_checks.h"

#include <unistd.h>

#include <filesystem>

#include "base/file.h"
#include "base/status_macros.h"

namespace pricer {
namespace {

absl::Status Refuse(absl::string_view option, absl::string_view path, absl::string_view reason) {
  return absl::InvalidArgumentError(absl::StrCat(option, ": ", path, " ", reason));
}

}  // namespace

absl::Status CheckMemoryBudget(int64_t bytes) {
  return CheckBounds<int64_t>("--memory-budget", bytes, 1, kManyItems * 1024);
}

absl::Status CheckFile(absl::string_view option, const std::string& path) {
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return Refuse(option, path, "does not exist");
  if (std::filesystem::is_directory(path, error)) return Refuse(option, path, "is a directory");
  if (access(path.c_str(), R_OK) != 0) return Refuse(option, path, "cannot be read");
  return absl::OkStatus();
}

absl::Status CheckRegularFile(absl::string_view option, const std::string& path) {
  RETURN_IF_ERROR(CheckFile(option, path));
  std::error_code error;
  if (std::filesystem::is_regular_file(path, error)) return absl::OkStatus();
  return Refuse(option, path, "is not a regular file, which it must be to be read twice");
}

absl::Status CheckNotEmpty(absl::string_view option, absl::string_view value) {
  if (!value.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(option, " is empty"));
}

absl::Status MakeOutputDirectory(absl::string_view option, const std::string& path) {
  if (const absl::Status made = MakeDirectories(path); !made.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(option, ": ", made.message()));
  }
  if (access(path.c_str(), W_OK | X_OK) == 0) return absl::OkStatus();
  return Refuse(option, path, "cannot be written to");
}

absl::Status CheckDirectory(absl::string_view option, const std::string& path) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) return absl::OkStatus();
  return Refuse(option, path, "is not a directory");
}

absl::Status CheckOutputFile(absl::string_view option, const std::string& path) {
  std::error_code error;
  if (path.empty()) return Refuse(option, path, "is empty; expected a file name");
  const absl::StatusOr<OutputPlace> place = FindOutputPlace(path);
  if (!place.ok())
    return absl::InvalidArgumentError(absl::StrCat(option, ": ", place.status().message()));
  if (place->is_stream) {
    if (access(path.c_str(), W_OK) != 0) return Refuse(option, path, "cannot be written");
    return absl::OkStatus();
  }
  const std::filesystem::path parent = std::filesystem::path(place->path).parent_path();
  const std::string directory = parent.empty() ? "." : parent.string();
  if (!std::filesystem::is_directory(directory, error)) {
    return Refuse(option, path,
                  absl::StrCat("cannot be written: ", directory, " is not a directory"));
  }
  if (access(directory.c_str(), W_OK) != 0) {
    return Refuse(option, path, absl::StrCat("cannot be written: no permission in ", directory));
  }
  return absl::OkStatus();
}

absl::Status CheckOtherFile(absl::string_view option, const std::string& path,
                            absl::string_view other_option, const std::string& other_path) {
  if (path.empty() || other_path.empty() || !SameFile(path, other_path)) return absl::OkStatus();
  return Refuse(option, path, absl::StrCat("is also ", other_option, ", which it would replace"));
}

}  // namespace pricer
