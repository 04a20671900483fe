#include "server/label_follower.h"

#include <sys/stat.h>

#include <cerrno>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/logging.h"
#include "model/adapter_labels.h"

namespace pricer {
namespace {

constexpr int kAbsentPollsToForget = 2;

// Changes when the file does; empty where there is none, errno says why.
std::string SignatureOf(const std::string& path) {
  struct stat info {};
  errno = 0;
  if (stat(path.c_str(), &info) != 0) return "";
  return absl::StrCat(info.st_dev, " ", info.st_ino, " ", info.st_size, " ", info.st_mtim.tv_sec,
                      ".", info.st_mtim.tv_nsec, " ", info.st_ctim.tv_sec, ".",
                      info.st_ctim.tv_nsec);
}

}  // namespace

void LabelFollower::Poll(const FolderScan& scan) {
  std::set<std::string> names;
  for (const AdapterKey& key : scan.versions) names.insert(key.name);
  MutexLock lock(&mutex_);
  for (const auto& [name, _] : known_) names.insert(name);
  for (const std::string& name : names) {
    if (scan.unreadable_names.count(name) == 0) Look(name);
  }
}

void LabelFollower::Refresh(const std::string& name) {
  MutexLock lock(&mutex_);
  Look(name);
}

void LabelFollower::Look(const std::string& name) {
  const std::string path = absl::StrCat(root_, "/", name, "/", kLabelsFile);
  const std::string signature = SignatureOf(path);
  const auto known = known_.find(name);
  if (signature.empty()) {
    const bool gone = errno == ENOENT || errno == ENOTDIR;
    if (known == known_.end() || !gone || ++known->second.absent_polls < kAbsentPollsToForget) {
      return;
    }
    LogInfo("labels gone: the newest version answers", {{"adapter", name}});
    registry_->SetLabels(name, AdapterLabels());
    known_.erase(known);
    return;
  }
  if (known != known_.end()) {
    known->second.absent_polls = 0;
    if (known->second.signature == signature) return;
  }
  Read(name, signature);
}

void LabelFollower::Read(const std::string& name, const std::string& signature) {
  absl::StatusOr<AdapterLabels> labels = ReadAdapterLabels(absl::StrCat(root_, "/", name));
  // Gone since: the next look sees it.
  if (labels.ok() && labels->generation == 0) return;
  Known& known = known_[name];
  if (labels.ok()) {
    known.signature = signature;
    known.error.clear();
    LogInfo("labels read", {{"adapter", name}, {"generation", absl::StrCat(labels->generation)}});
    registry_->SetLabels(name, *std::move(labels));
    return;
  }
  const std::string error(labels.status().message());
  // What is wrong with the contents stays so until the file changes; all else may pass.
  const bool may_pass =
      !absl::IsDataLoss(labels.status()) && !absl::IsUnimplemented(labels.status());
  known.signature = may_pass ? "" : signature;
  registry_->SetLabelsError(name, error);
  if (known.error == error) return;
  known.error = error;
  LogError("labels not readable; they stay as they were", {{"adapter", name}, {"error", error}});
}

}  // namespace pricer
