#include "server/adapter_folder.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <optional>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/file_descriptor.h"
#include "base/status_macros.h"
#include "model/adapter_directory.h"
#include "model/adapter_name.h"

namespace pricer {
namespace {

namespace fs = std::filesystem;

absl::StatusOr<DirectoryIdentity> IdentityOf(const std::string& path) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0) {
    return absl::UnavailableError(absl::StrCat(path, ": ", std::strerror(errno)));
  }
  if (!S_ISDIR(info.st_mode)) return absl::UnavailableError(path + ": not a directory");
  return DirectoryIdentity{static_cast<uint64_t>(info.st_dev), static_cast<uint64_t>(info.st_ino)};
}

bool MeansAbsent(const std::error_code& error) {
  return error == std::errc::no_such_file_or_directory || error == std::errc::not_a_directory;
}

// Names of the entries, sorted.
absl::StatusOr<std::vector<std::string>> EntriesOf(const fs::path& directory,
                                                   std::error_code& error) {
  std::vector<std::string> names;
  fs::directory_iterator entry(directory, error);
  while (!error && entry != fs::directory_iterator()) {
    names.push_back(entry->path().filename().string());
    entry.increment(error);
  }
  if (error) {
    return absl::UnavailableError(absl::StrCat(directory.string(), ": ", error.message()));
  }
  std::sort(names.begin(), names.end());
  return names;
}

// Whether there is such a file; `error` is set where that cannot be told.
bool Exists(const fs::path& path, std::error_code& error) {
  const fs::file_status status = fs::status(path, error);
  if (status.type() == fs::file_type::not_found || MeansAbsent(error)) error.clear();
  return fs::exists(status);
}

void ScanName(const std::string& root, const std::string& name, FolderScan* scan) {
  std::error_code error;
  const fs::path directory = fs::path(root) / name;
  const absl::StatusOr<std::vector<std::string>> entries = EntriesOf(directory, error);
  if (!entries.ok()) {
    if (!MeansAbsent(error)) scan->unreadable_names[name] = error.message();
    return;
  }
  for (const std::string& entry : *entries) {
    const std::optional<int64_t> version = ParseAdapterVersion(entry);
    if (!version.has_value()) continue;
    const bool ready = Exists(directory / entry / std::string(kReadyFile), error);
    if (error) {
      scan->unreadable_names[name] = absl::StrCat("version ", entry, ": ", error.message());
    } else if (ready) {
      scan->versions.insert({name, *version});
    }
  }
}

// The first bytes of a regular file; of anything else none, without waiting for a pipe's writer.
std::string HeadOfFile(const fs::path& path) {
  const FileDescriptor file(open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  struct stat info {};
  if (!file.ok() || fstat(file.get(), &info) != 0 || !S_ISREG(info.st_mode)) return "";
  std::string head(256, '\0');
  const ssize_t count = read(file.get(), head.data(), head.size());
  head.resize(count > 0 ? static_cast<size_t>(count) : 0);
  return head;
}

}  // namespace

absl::StatusOr<FolderScan> ScanAdapterFolder(const std::string& root) {
  FolderScan scan;
  ASSIGN_OR_RETURN(scan.root, IdentityOf(root));
  std::error_code error;
  ASSIGN_OR_RETURN(const std::vector<std::string> names, EntriesOf(root, error));
  for (const std::string& name : names) {
    // Hidden entries are temporary siblings and a file system's own.
    if (name.front() == '.') continue;
    if (ValidateAdapterName(name).ok()) {
      ScanName(root, name, &scan);
    } else {
      scan.foreign_entries.push_back(name);
    }
  }
  ASSIGN_OR_RETURN(const DirectoryIdentity after, IdentityOf(root));
  if (!(after == scan.root)) {
    return absl::UnavailableError(root + ": exchanged for another directory while it was read");
  }
  return scan;
}

std::string AdapterDirectory(const std::string& root, const AdapterKey& key) {
  return absl::StrCat(root, "/", key.name, "/", key.version);
}

std::string VersionSignature(const std::string& directory) {
  std::error_code error;
  const absl::StatusOr<std::vector<std::string>> entries = EntriesOf(directory, error);
  if (!entries.ok()) return std::string(entries.status().message());
  std::vector<std::string> parts;
  for (const std::string& entry : *entries) {
    struct stat info {};
    stat((fs::path(directory) / entry).c_str(), &info);
    parts.push_back(absl::StrCat(entry, " ", info.st_size, " ", info.st_mtim.tv_sec, ".",
                                 info.st_mtim.tv_nsec));
  }
  parts.push_back(HeadOfFile(fs::path(directory) / std::string(kReadyFile)));
  return absl::StrJoin(parts, "\n");
}

}  // namespace pricer
