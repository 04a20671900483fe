#include "trainer/prune.h"

#include <filesystem>
#include <numeric>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/adapter_name.h"
#include "trainer/hidden_removal.h"
#include "trainer/option_checks.h"
#include "trainer/prune_runs.h"
#include "trainer/prune_versions.h"

namespace pricer {
namespace {

namespace fs = std::filesystem;

// An adapter's folder; a link to one is another name of what is pruned under its own.
bool IsAdapterFolder(const std::string& path, const std::string& name) {
  std::error_code ignored;
  return ValidateAdapterName(name).ok() && fs::is_directory(fs::symlink_status(path, ignored));
}

absl::StatusOr<std::vector<std::string>> AdapterNames(const PruneOptions& options) {
  ASSIGN_OR_RETURN(const std::vector<std::string> entries, EntriesOf(options.adapters));
  std::vector<std::string> names;
  for (const std::string& entry : entries) {
    if (!options.name.empty() && entry != options.name) continue;
    if (IsAdapterFolder(absl::StrCat(options.adapters, "/", entry), entry)) names.push_back(entry);
  }
  if (names.empty() && !options.name.empty()) {
    return absl::NotFoundError(
        absl::StrCat(options.adapters, "/", options.name, ": is no adapter's folder"));
  }
  return names;
}

}  // namespace

absl::Status PruneOptions::Validate() const {
  RETURN_IF_ERROR(CheckDirectory("--adapters", adapters));
  if (!runs.empty()) RETURN_IF_ERROR(CheckDirectory("--runs", runs));
  if (!name.empty()) {
    if (const absl::Status valid = ValidateAdapterName(name); !valid.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("--name: ", valid.message()));
    }
  }
  return CheckBounds<int64_t>("--keep", keep, 1, kManyItems);
}

int64_t PruneOutcome::freed_bytes() const {
  return std::accumulate(decisions.begin(), decisions.end(), int64_t{0},
                         [](int64_t sum, const PruneDecision& decision) {
                           return sum + (decision.removed ? decision.bytes : 0);
                         });
}

absl::StatusOr<PruneOutcome> Prune(const PruneOptions& options, absl::Time now) {
  RETURN_IF_ERROR(options.Validate());
  PruneOutcome outcome;
  ASSIGN_OR_RETURN(const std::vector<std::string> names, AdapterNames(options));
  const std::set<std::string> linked = LinkedVersions(options.adapters);
  for (const std::string& name : names) {
    const absl::Status status =
        PruneVersions(absl::StrCat(options.adapters, "/", name), options, linked, now, &outcome);
    if (!status.ok()) outcome.failures.emplace_back(status.message());
  }
  if (!options.runs.empty()) RETURN_IF_ERROR(PruneRuns(options, &outcome));
  return outcome;
}

}  // namespace pricer
