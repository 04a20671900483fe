#include "trainer/prune_runs.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "base/file_descriptor.h"
#include "base/status_macros.h"
#include "trainer/hidden_removal.h"
#include "trainer/run_folder.h"

namespace pricer {
namespace {

namespace fs = std::filesystem;

struct Run {
  std::string path;
  absl::Time last_change;
};

absl::Time LastChange(const std::string& path) {
  struct stat info {};
  for (const char* file : {"/metrics.jsonl", ""}) {
    if (stat((path + file).c_str(), &info) == 0) break;
  }
  return absl::TimeFromTimespec(info.st_mtim);
}

// By name, each newest first.
absl::StatusOr<std::map<std::string, std::vector<Run>>> FindRuns(const PruneOptions& options) {
  std::map<std::string, std::vector<Run>> runs;
  ASSIGN_OR_RETURN(const std::vector<std::string> entries, EntriesOf(options.runs));
  for (const std::string& entry : entries) {
    const std::string name = NameOfRun(entry);
    const std::string path = absl::StrCat(options.runs, "/", entry);
    if (name.empty() || (!options.name.empty() && name != options.name)) continue;
    std::error_code ignored;
    if (fs::exists(path + "/lock", ignored)) runs[name].push_back({path, LastChange(path)});
  }
  for (auto& [name, of_name] : runs) {
    std::stable_sort(of_name.begin(), of_name.end(),
                     [](const Run& a, const Run& b) { return a.last_change > b.last_change; });
  }
  return runs;
}

// Where it could not be published.
bool HoldsAnAdapter(const std::string& run) {
  std::error_code ignored;
  const std::string adapters = run + "/adapters";
  return !IsPublished(run) && fs::is_directory(adapters, ignored) &&
         !fs::is_empty(adapters, ignored);
}

// None where another process works on the run; RunLog's lock.
FileDescriptor LockRun(const std::string& run) {
  FileDescriptor file(open((run + "/lock").c_str(), O_RDWR | O_CLOEXEC));
  if (!file.ok() || flock(file.get(), LOCK_EX | LOCK_NB) != 0) return FileDescriptor();
  return file;
}

// The lock is held, so that nobody resumes what is being removed.
void RemoveRun(const Run& run, const PruneOptions& options, PruneOutcome* outcome) {
  const absl::string_view state = IsPublished(run.path) ? "published" : "unfinished";
  PruneDecision decision{
      .path = run.path,
      .removed = true,
      .reason = absl::StrCat(state, ", older than the newest ", options.keep, " of its name"),
      .bytes = TreeBytes(run.path)};
  if (!options.dry_run) {
    const absl::StatusOr<std::string> hidden = Hide(run.path);
    const absl::Status removed = hidden.ok() ? RemoveTree(*hidden) : hidden.status();
    if (!removed.ok()) {
      outcome->failures.emplace_back(removed.message());
      return;
    }
  }
  outcome->decisions.push_back(std::move(decision));
}

void PruneRunsOfName(const std::vector<Run>& runs, const PruneOptions& options,
                     PruneOutcome* outcome) {
  const auto keep = [&](const Run& run, const std::string& reason) {
    outcome->decisions.push_back(
        {.path = run.path, .removed = false, .reason = reason, .bytes = 0});
  };
  bool found_resumable = false;
  for (size_t i = 0; i < runs.size(); ++i) {
    const bool resumable = !found_resumable && CanBeResumed(runs[i].path);
    found_resumable = found_resumable || resumable;
    if (static_cast<int64_t>(i) < options.keep) continue;
    const FileDescriptor lock = LockRun(runs[i].path);
    if (!lock.ok()) {
      keep(runs[i], "a process is working on it");
    } else if (HoldsAnAdapter(runs[i].path)) {
      keep(runs[i], "holds an adapter that was not published");
    } else if (resumable) {
      keep(runs[i], "the newest of its name that can be resumed");
    } else {
      RemoveRun(runs[i], options, outcome);
    }
  }
}

absl::Status RemoveLeftovers(const PruneOptions& options, PruneOutcome* outcome) {
  ASSIGN_OR_RETURN(const std::vector<std::string> entries, EntriesOf(options.runs));
  for (const std::string& entry : entries) {
    if (!absl::StartsWith(entry, kHiddenPrefix)) continue;
    const std::string path = absl::StrCat(options.runs, "/", entry);
    PruneDecision decision{.path = path,
                           .removed = true,
                           .reason = "left by an earlier prune",
                           .bytes = TreeBytes(path)};
    const absl::Status removed = options.dry_run ? absl::OkStatus() : RemoveTree(path);
    if (removed.ok()) {
      outcome->decisions.push_back(std::move(decision));
    } else {
      outcome->failures.emplace_back(removed.message());
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status PruneRuns(const PruneOptions& options, PruneOutcome* outcome) {
  RETURN_IF_ERROR(RemoveLeftovers(options, outcome));
  ASSIGN_OR_RETURN(const auto runs, FindRuns(options));
  for (const auto& [name, of_name] : runs) PruneRunsOfName(of_name, options, outcome);
  return absl::OkStatus();
}

}  // namespace pricer
