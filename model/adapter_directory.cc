#include "model/adapter_directory.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "base/temporary_directory.h"
#include "model/adapter_name.h"

namespace pricer {
namespace {

namespace fs = std::filesystem;

constexpr mode_t kDirectoryMode = 0755;

// The largest number among the entries, whatever they are: a file named like a version takes the
// number too.
absl::StatusOr<int64_t> NewestVersion(const std::string& directory) {
  int64_t newest = 0;
  std::error_code error;
  fs::directory_iterator entries(directory, error);
  for (; !error && entries != fs::directory_iterator(); entries.increment(error)) {
    newest = std::max(newest, ParseAdapterVersion(entries->path().filename().string()).value_or(0));
  }
  if (error) return ErrorCodeStatus(error, "cannot list", directory);
  return newest;
}

absl::StatusOr<PublishedVersion> ClaimVersion(const std::string& directory) {
  ASSIGN_OR_RETURN(const int64_t newest, NewestVersion(directory));
  for (int64_t version = newest + 1;; ++version) {
    const std::string path = absl::StrCat(directory, "/", version);
    if (mkdir(path.c_str(), kDirectoryMode) == 0) return PublishedVersion{path, version};
    if (errno != EEXIST) return ErrnoStatus("cannot make directory", path);
  }
}

absl::StatusOr<PublishedVersion> ClaimNumber(const std::string& directory, int64_t version) {
  const std::string path = absl::StrCat(directory, "/", version);
  std::error_code error;
  if (fs::exists(absl::StrCat(path, "/", kReadyFile), error)) {
    return absl::AlreadyExistsError(absl::StrCat(path, ": there is such a version"));
  }
  if (!error) fs::remove_all(path, error);
  if (error) return ErrorCodeStatus(error, "cannot remove", path);
  if (mkdir(path.c_str(), kDirectoryMode) != 0) return ErrnoStatus("cannot make directory", path);
  return PublishedVersion{path, version};
}

// Steps (3) and (4). On an error the claim is given up and the files are back in the temporary
// directory or gone.
absl::Status MoveIntoPlace(const std::string& temporary, const std::string& place,
                           const std::string& parent, absl::string_view marker) {
  if (rename(temporary.c_str(), place.c_str()) != 0) {
    const absl::Status status = ErrnoStatus("cannot rename into place", place);
    rmdir(place.c_str());  // only ever removes our own empty claim
    return status;
  }
  absl::Status status = SyncDirectory(parent);
  if (status.ok()) status = WriteFileAtomically(absl::StrCat(place, "/", kReadyFile), marker);
  if (status.ok()) return status;
  // Whoever saw the marker may be loading the files, so it goes first.
  unlink(absl::StrCat(place, "/", kReadyFile).c_str());
  rename(place.c_str(), temporary.c_str());
  return status;
}

absl::StatusOr<PublishedVersion> Publish(
    const std::string& root, const std::string& name, const FillVersion& write,
    const std::function<absl::StatusOr<PublishedVersion>(const std::string& directory)>& claim) {
  RETURN_IF_ERROR(ValidateAdapterName(name));
  const std::string parent = absl::StrCat(root, "/", name);
  RETURN_IF_ERROR(MakeDirectories(parent));
  RETURN_IF_ERROR(SyncDirectory(root));
  ASSIGN_OR_RETURN(const TemporaryDirectory temporary, TemporaryDirectory::Create(parent));
  ASSIGN_OR_RETURN(const std::string marker, write(temporary.path()));
  RETURN_IF_ERROR(SyncDirectory(temporary.path()));
  ASSIGN_OR_RETURN(const PublishedVersion version, claim(parent));
  RETURN_IF_ERROR(MoveIntoPlace(temporary.path(), version.directory, parent, marker));
  return version;
}

}  // namespace

absl::StatusOr<PublishedVersion> PublishVersion(const std::string& root, const std::string& name,
                                                const FillVersion& write) {
  return Publish(root, name, write, ClaimVersion);
}

absl::StatusOr<PublishedVersion> PlaceVersion(const std::string& root, const std::string& name,
                                              int64_t version, const FillVersion& write) {
  const auto claim = [version](const std::string& directory) {
    return ClaimNumber(directory, version);
  };
  return Publish(root, name, write, claim);
}

absl::Status CheckInsideFolder(const std::string& path, const std::string& folder) {
  std::error_code error;
  const fs::path real = fs::canonical(path, error);
  if (error) return ErrorCodeStatus(error, "cannot open", path);
  const fs::path real_folder = fs::canonical(folder, error);
  if (error) return ErrorCodeStatus(error, "cannot open", folder);
  const auto [folder_end, _] =
      std::mismatch(real_folder.begin(), real_folder.end(), real.begin(), real.end());
  if (folder_end == real_folder.end()) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(path, ": a link leads out of ", folder, " to ",
                                          real.string(), "; expected a file inside the folder"));
}

absl::StatusOr<std::string> ReadAdapterFile(const std::string& folder, absl::string_view name,
                                            int64_t max_bytes) {
  const std::string path = absl::StrCat(folder, "/", name);
  RETURN_IF_ERROR(CheckInsideFolder(path, folder));
  struct stat info;
  if (stat(path.c_str(), &info) != 0) return ErrnoStatus("cannot open", path);
  if (!S_ISREG(info.st_mode)) {
    return absl::DataLossError(absl::StrCat(path, ": expected a regular file"));
  }
  if (info.st_size > max_bytes) {
    return absl::DataLossError(
        absl::StrCat(path, ": expected at most ", max_bytes, " bytes, got ", info.st_size));
  }
  return ReadFile(path);
}

}  // namespace pricer
