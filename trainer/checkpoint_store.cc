#include "trainer/checkpoint_store.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "base/file.h"
#include "base/sha256.h"
#include "base/status_macros.h"

namespace pricer {
namespace {

namespace fs = std::filesystem;

constexpr absl::string_view kMarker = "_COMPLETE";
constexpr absl::string_view kPrefix = "step-";
constexpr absl::string_view kTemporary = ".tmp-";

std::string DirectoryOf(const std::string& folder, int64_t step) {
  return absl::StrCat(folder, "/", kPrefix, step);
}

std::optional<int64_t> StepOf(const std::string& name) {
  int64_t step = 0;
  if (!absl::StartsWith(name, kPrefix)) return std::nullopt;
  if (!absl::SimpleAtoi(absl::string_view(name).substr(kPrefix.size()), &step) || step < 0) {
    return std::nullopt;
  }
  return step;
}

absl::Status Failed(const std::error_code& error, absl::string_view action,
                    absl::string_view path) {
  errno = error.value();
  return ErrnoStatus(action, path);
}

absl::StatusOr<std::vector<std::string>> NamesIn(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code error;
  fs::directory_iterator entries(folder, error);
  for (; !error && entries != fs::directory_iterator(); entries.increment(error)) {
    names.push_back(entries->path().filename().string());
  }
  if (error) return Failed(error, "cannot list", folder);
  std::sort(names.begin(), names.end());
  return names;
}

// Newest first; none where there is no folder.
absl::StatusOr<std::vector<int64_t>> StepsIn(const std::string& folder) {
  std::vector<int64_t> steps;
  if (std::error_code ignored; !fs::exists(folder, ignored)) return steps;
  ASSIGN_OR_RETURN(const std::vector<std::string> names, NamesIn(folder));
  for (const std::string& name : names) {
    if (const std::optional<int64_t> step = StepOf(name); step.has_value()) steps.push_back(*step);
  }
  std::sort(steps.begin(), steps.end(), std::greater<>());
  return steps;
}

// "<sha256>  <name>" a line, as sha256sum has it.
absl::StatusOr<std::string> MarkerText(const std::string& directory) {
  std::string text;
  ASSIGN_OR_RETURN(const std::vector<std::string> names, NamesIn(directory));
  for (const std::string& name : names) {
    if (name == kMarker) continue;
    ASSIGN_OR_RETURN(const std::string digest, Sha256HexOfFile(absl::StrCat(directory, "/", name)));
    absl::StrAppend(&text, digest, "  ", name, "\n");
  }
  return text;
}

absl::Status CheckWhole(const std::string& directory) {
  ASSIGN_OR_RETURN(const std::string marker, ReadFile(absl::StrCat(directory, "/", kMarker)));
  ASSIGN_OR_RETURN(const std::string expected, MarkerText(directory));
  if (marker == expected) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrCat(directory, ": its files are not those that ", kMarker, " lists"));
}

absl::Status Remove(const std::string& path) {
  std::error_code error;
  fs::remove_all(path, error);
  return error ? Failed(error, "cannot remove", path) : absl::OkStatus();
}

// Fine if it is there already. Not its parents: a run whose folder was removed is to end, not to go
// on in a new one.
absl::Status MakeDirectory(const std::string& path) {
  if (mkdir(path.c_str(), 0777) == 0 || errno == EEXIST) return absl::OkStatus();
  return ErrnoStatus("cannot make directory", path);
}

// What an earlier process left when it was killed.
absl::Status RemoveLeftovers(const std::string& folder) {
  ASSIGN_OR_RETURN(const std::vector<std::string> names, NamesIn(folder));
  for (const std::string& name : names) {
    if (absl::StartsWith(name, kTemporary)) {
      RETURN_IF_ERROR(Remove(absl::StrCat(folder, "/", name)));
    }
  }
  return absl::OkStatus();
}

absl::Status Fill(const std::string& temporary,
                  const std::function<absl::Status(const std::string&)>& write) {
  RETURN_IF_ERROR(MakeDirectory(temporary));
  RETURN_IF_ERROR(write(temporary));
  ASSIGN_OR_RETURN(const std::string marker, MarkerText(temporary));
  return WriteFileAtomically(absl::StrCat(temporary, "/", kMarker), marker);
}

}  // namespace

absl::Status CheckpointStore::Save(
    int64_t step, const std::function<absl::Status(const std::string& directory)>& write) const {
  RETURN_IF_ERROR(MakeDirectory(folder_));
  RETURN_IF_ERROR(RemoveLeftovers(folder_));
  const std::string place = DirectoryOf(folder_, step);
  if (CheckWhole(place).ok()) return absl::OkStatus();
  const std::string temporary = absl::StrCat(folder_, "/", kTemporary, step);
  if (const absl::Status filled = Fill(temporary, write); !filled.ok()) {
    Remove(temporary).IgnoreError();  // the error that counts is the first
    return filled;
  }
  RETURN_IF_ERROR(Remove(place));  // a broken one of this step
  if (rename(temporary.c_str(), place.c_str()) != 0) {
    return ErrnoStatus("cannot rename into place", place);
  }
  RETURN_IF_ERROR(SyncDirectory(folder_));
  ASSIGN_OR_RETURN(const std::vector<int64_t> steps, StepsIn(folder_));
  for (size_t i = keep_; i < steps.size(); ++i) {
    RETURN_IF_ERROR(Remove(DirectoryOf(folder_, steps[i])));
  }
  return absl::OkStatus();
}

absl::StatusOr<CheckpointStore::Found> CheckpointStore::FindNewest() const {
  Found found;
  ASSIGN_OR_RETURN(const std::vector<int64_t> steps, StepsIn(folder_));
  for (const int64_t step : steps) {
    const std::string directory = DirectoryOf(folder_, step);
    const absl::Status whole = CheckWhole(directory);
    if (whole.ok()) {
      found.directory = directory;
      found.step = step;
      return found;
    }
    found.skipped.push_back(std::string(whole.message()));
  }
  return absl::NotFoundError(absl::StrCat(folder_, ": no whole checkpoint",
                                          found.skipped.empty() ? "" : "; ",
                                          absl::StrJoin(found.skipped, "; ")));
}

}  // namespace pricer
