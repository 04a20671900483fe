#include "trainer/prune_versions.h"

#include <sys/stat.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <system_error>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "base/temporary_directory.h"
#include "model/adapter_directory.h"
#include "model/adapter_name.h"
#include "model/json_fields.h"
#include "model/manifest.h"
#include "trainer/hidden_removal.h"
#include "trainer/labelled_versions.h"

namespace pricer {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMaxMarkerBytes = 4096;
// Publishing takes seconds; whoever leaves a directory alone for so long is not at it.
constexpr absl::Duration kAbandoned = absl::Hours(24);

bool Exists(const std::string& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

bool IsAbandoned(const std::string& directory, absl::Time now) {
  struct stat info {};
  if (lstat(directory.c_str(), &info) != 0) return false;
  return now - absl::TimeFromTimespec(info.st_mtim) >= kAbandoned;
}

// Whether the files are those that were published.
absl::Status CheckComplete(const std::string& directory) {
  ASSIGN_OR_RETURN(const std::string marker,
                   ReadAdapterFile(directory, kReadyFile, kMaxMarkerBytes));
  if (!Exists(absl::StrCat(directory, "/", kManifestFile))) {
    // As PEFT saves it.
    RETURN_IF_ERROR(ReadAdapterFile(directory, kAdapterConfigFile, kMaxJsonBytes).status());
    return CheckInsideFolder(absl::StrCat(directory, "/", kAdapterTensorsFile), directory);
  }
  ASSIGN_OR_RETURN(const std::string text,
                   ReadAdapterFile(directory, kManifestFile, kMaxJsonBytes));
  const absl::string_view signed_digest = absl::StripAsciiWhitespace(marker);
  if (!signed_digest.empty() && signed_digest != Sha256Hex(text)) {
    return absl::DataLossError(
        absl::StrCat(directory, "/", kManifestFile, ": not what the marker signs"));
  }
  ASSIGN_OR_RETURN(const Manifest manifest, Manifest::FromJson(text, directory));
  for (const auto& [name, expected] : manifest.files) {
    const std::string path = absl::StrCat(directory, "/", name);
    ASSIGN_OR_RETURN(const std::string digest, Sha256HexOfFile(path));
    if (digest != expected) return absl::DataLossError(absl::StrCat(path, ": other bytes"));
  }
  return absl::OkStatus();
}

std::string RealPath(const std::string& path) {
  std::error_code ignored;
  return fs::canonical(path, ignored).string();
}

class VersionPruner {
 public:
  VersionPruner(std::string folder, const PruneOptions& options,
                const std::set<std::string>& linked, absl::Time now, PruneOutcome* outcome)
      : folder_(std::move(folder)),
        options_(options),
        linked_(linked),
        now_(now),
        outcome_(outcome) {}

  absl::Status Run() {
    ASSIGN_OR_RETURN(const auto labelled, LabelledVersions(folder_));
    ASSIGN_OR_RETURN(const std::vector<std::string> entries, EntriesOf(folder_));
    for (const std::string& entry : entries) RemoveLeftover(entry);
    for (const int64_t version : OldVersions(entries)) Consider(version, labelled);
    return absl::OkStatus();
  }

 private:
  std::string PathOf(absl::string_view entry) const { return absl::StrCat(folder_, "/", entry); }

  // Those older than the newest `keep` complete ones, ascending; none where there are not so many.
  std::vector<int64_t> OldVersions(const std::vector<std::string>& entries) const {
    std::vector<int64_t> versions;
    for (const std::string& entry : entries) {
      const std::optional<int64_t> version = ParseAdapterVersion(entry);
      std::error_code ignored;
      if (version && fs::is_directory(PathOf(entry), ignored)) versions.push_back(*version);
    }
    std::sort(versions.begin(), versions.end());
    int64_t complete = 0;
    while (!versions.empty() && complete < options_.keep) {
      if (CheckComplete(PathOf(absl::StrCat(versions.back()))).ok()) ++complete;
      versions.pop_back();
    }
    return versions;
  }

  void Consider(int64_t version, const std::map<int64_t, std::string>& labelled) {
    const std::string path = PathOf(absl::StrCat(version));
    if (const auto label = labelled.find(version); label != labelled.end()) {
      Keep(path, label->second);
    } else if (linked_.count(RealPath(path)) > 0) {
      Keep(path, "a link leads to it");
    } else if (Exists(absl::StrCat(path, "/", kReadyFile))) {
      RemoveVersion(version, absl::StrCat("older than the newest ", options_.keep, " complete"));
    } else if (IsAbandoned(path, now_)) {
      RemoveVersion(version, "never completed");
    } else {
      Keep(path, "not complete, but changed less than a day ago");
    }
  }

  void RemoveLeftover(const std::string& entry) {
    if (absl::StartsWith(entry, kHiddenPrefix)) {
      Remove(PathOf(entry), PathOf(entry), "left by an earlier prune");
    } else if (TemporaryDirectory::IsAbandoned(PathOf(entry), now_)) {
      Remove(PathOf(entry), PathOf(entry), "left by a publisher that was killed");
    }
  }

  void RemoveVersion(int64_t version, absl::string_view reason) {
    const std::string path = PathOf(absl::StrCat(version));
    if (options_.dry_run) {
      Remove(path, path, reason);
      return;
    }
    const absl::StatusOr<std::string> hidden = Hide(path);
    if (!hidden.ok()) {
      outcome_->failures.emplace_back(hidden.status().message());
      return;
    }
    // A label may have been moved to it meanwhile.
    const auto labelled = LabelledVersions(folder_);
    if (labelled.ok() && labelled->count(version) == 0) {
      Remove(*hidden, path, reason);
    } else if (rename(hidden->c_str(), path.c_str()) == 0) {
      Keep(path, "labels.json was changed");
    } else {
      outcome_->failures.emplace_back(
          ErrnoStatus(absl::StrCat("cannot get its name back from ", *hidden), path).message());
    }
  }

  void Keep(const std::string& path, const std::string& reason) {
    outcome_->decisions.push_back({.path = path, .removed = false, .reason = reason, .bytes = 0});
  }

  // `path` is now where what was `name` is.
  void Remove(const std::string& path, const std::string& name, absl::string_view reason) {
    const int64_t bytes = TreeBytes(path);
    if (!options_.dry_run) {
      if (const absl::Status removed = RemoveTree(path); !removed.ok()) {
        outcome_->failures.emplace_back(removed.message());
        return;
      }
    }
    outcome_->decisions.push_back(
        {.path = name, .removed = true, .reason = std::string(reason), .bytes = bytes});
  }

  const std::string folder_;
  const PruneOptions& options_;
  const std::set<std::string>& linked_;
  const absl::Time now_;
  PruneOutcome* const outcome_;
};

}  // namespace

std::set<std::string> LinkedVersions(const std::string& adapters) {
  std::set<std::string> targets;
  std::error_code ignored;
  for (fs::directory_iterator names(adapters, ignored), end; names != end;
       names.increment(ignored)) {
    for (fs::directory_iterator entries(names->path(), ignored); entries != end;
         entries.increment(ignored)) {
      if (entries->is_symlink(ignored)) targets.insert(RealPath(entries->path().string()));
    }
  }
  targets.erase("");
  return targets;
}

absl::Status PruneVersions(const std::string& folder, const PruneOptions& options,
                           const std::set<std::string>& linked, absl::Time now,
                           PruneOutcome* outcome) {
  return VersionPruner(folder, options, linked, now, outcome).Run();
}

}  // namespace pricer
