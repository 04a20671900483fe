#include "trainer/run_folder.h"

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <system_error>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "model/adapter_name.h"
#include "trainer/checkpoint_store.h"

namespace pricer {
namespace {

namespace fs = std::filesystem;

std::optional<int64_t> NumberOfRun(const std::string& entry) {
  const size_t dash = entry.rfind('-');
  if (dash == std::string::npos) return std::nullopt;
  return ParseAdapterVersion(entry.substr(dash + 1));
}

}  // namespace

std::string NameOfRun(const std::string& entry) {
  return NumberOfRun(entry).has_value() ? entry.substr(0, entry.rfind('-')) : "";
}

std::string PublishedFile(const std::string& run) { return run + "/published.json"; }

bool IsPublished(const std::string& run) {
  std::error_code ignored;
  return fs::exists(PublishedFile(run), ignored);
}

std::string CheckpointsOf(const std::string& run) { return run + "/checkpoints"; }

bool CanBeResumed(const std::string& run) {
  return !IsPublished(run) && CheckpointStore(CheckpointsOf(run), /*keep=*/1).FindNewest().ok();
}

absl::StatusOr<std::optional<std::string>> LatestRun(const std::string& runs,
                                                     const std::string& name) {
  std::optional<int64_t> latest;
  std::error_code error;
  fs::directory_iterator entries(runs, error);
  for (; !error && entries != fs::directory_iterator(); entries.increment(error)) {
    const std::string entry = entries->path().filename().string();
    if (NameOfRun(entry) == name) latest = std::max(latest, NumberOfRun(entry));
  }
  if (error && error != std::errc::no_such_file_or_directory) {
    return absl::InternalError(absl::StrCat("--runs ", runs, ": ", error.message()));
  }
  if (!latest.has_value()) return std::optional<std::string>();
  return absl::StrCat(runs, "/", name, "-", *latest);
}

}  // namespace pricer
