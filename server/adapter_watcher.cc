#include "server/adapter_watcher.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/check.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "base/thread_priority.h"
#include "model/adapter_directory.h"

namespace pricer {
namespace {

constexpr int kAbsentPollsToUnload = 2;
// Doubling stops here, long after the longest delay is reached.
constexpr int kMaxDoublings = 30;
constexpr size_t kMaxWarnedEntries = 1000;
constexpr char kRemovedReason[] = "removed from the adapter folder";

// Reasons that may be gone on the next try though no file changed.
bool MayPass(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kInternal:
    case absl::StatusCode::kUnknown:
      return true;
    default:
      return false;
  }
}

std::vector<LogField> FieldsOf(const AdapterKey& key) {
  return {{"adapter", key.name}, {"version", absl::StrCat(key.version)}};
}

}  // namespace

AdapterWatcher::AdapterWatcher(const AdapterWatcherOptions& options, LoadFunction load,
                               AdapterRegistry* registry, Metrics* metrics, const Clock* clock)
    : options_(options),
      load_(std::move(load)),
      registry_(registry),
      metrics_(metrics),
      clock_(clock),
      labels_(options.root, registry) {}

AdapterWatcher::~AdapterWatcher() { Stop(); }

void AdapterWatcher::Start() {
  {
    MutexLock lock(&mutex_);
    running_ = true;
  }
  thread_ = std::thread([this] { Run(); });
}

void AdapterWatcher::RequestStop() {
  MutexLock lock(&mutex_);
  stopping_ = true;
  changed_.SignalAll();
}

bool AdapterWatcher::Stop(absl::Time deadline) {
  RequestStop();
  {
    MutexLock lock(&mutex_);
    while (running_ && deadline != absl::InfiniteFuture()) {
      const absl::Duration left = deadline - clock_->Now();
      if (left <= absl::ZeroDuration()) return false;
      changed_.WaitWithTimeout(&mutex_, left);
    }
  }
  if (thread_.joinable()) thread_.join();
  return true;
}

void AdapterWatcher::Run() {
  LowerThreadPriority();
  while (WaitForNextPoll()) {
    // The next poll looks again; the reason is logged and counted there.
    Poll().IgnoreError();
  }
  MutexLock lock(&mutex_);
  running_ = false;
  changed_.SignalAll();
}

bool AdapterWatcher::WaitForNextPoll() {
  const absl::Time next = absl::Now() + options_.poll_interval;
  while (true) {
    AnswerRequests();
    MutexLock lock(&mutex_);
    if (stopping_) return false;
    if (!requests_.empty()) continue;
    const absl::Duration left = next - absl::Now();
    if (left <= absl::ZeroDuration() || changed_.WaitWithTimeout(&mutex_, left)) return !stopping_;
  }
}

absl::Status AdapterWatcher::Ask(std::function<absl::Status()> work, absl::Time deadline) {
  const auto request = std::make_shared<Request>();
  request->work = std::move(work);
  MutexLock lock(&mutex_);
  if (running_) requests_.push_back(request);
  changed_.SignalAll();
  while (running_ && !stopping_ && !request->status.has_value()) {
    const absl::Duration left = deadline - clock_->Now();
    if (left <= absl::ZeroDuration()) {
      std::erase(requests_, request);
      return absl::DeadlineExceededError(
          "the server did not come to it in time: it is loading other versions");
    }
    if (deadline == absl::InfiniteFuture()) {
      changed_.Wait(&mutex_);
    } else {
      changed_.WaitWithTimeout(&mutex_, left);
    }
  }
  // Moved: the thread may still hold the request, and a status that two threads count is counted
  // inside libabsl, where the thread sanitizer does not see the order.
  if (request->status.has_value()) return *std::move(request->status);
  return absl::UnavailableError("the server does not look at its adapter folder now");
}

void AdapterWatcher::AnswerRequests() {
  while (true) {
    std::shared_ptr<Request> request;
    {
      MutexLock lock(&mutex_);
      if (requests_.empty() || stopping_) return;
      request = std::move(requests_.front());
      requests_.pop_front();
    }
    absl::Status status = request->work();
    MutexLock lock(&mutex_);
    request->status = std::move(status);
    changed_.SignalAll();
  }
}

absl::StatusOr<AdapterKey> AdapterWatcher::Load(const AdapterKey& key, absl::Time deadline) {
  // Shared with work that may outlive the wait.
  const auto loaded = std::make_shared<AdapterKey>();
  const absl::Status status = Ask(
      [this, key, loaded]() -> absl::Status {
        ASSIGN_OR_RETURN(*loaded, LoadNow(key));
        return absl::OkStatus();
      },
      deadline);
  if (!status.ok()) return status;
  return *loaded;
}

absl::StatusOr<std::vector<FreedAdapter>> AdapterWatcher::Unload(const AdapterKey& key,
                                                                 const std::string& reason,
                                                                 absl::Time deadline) {
  const auto freed = std::make_shared<std::vector<FreedAdapter>>();
  const absl::Status status = Ask(
      [this, key, reason, freed]() -> absl::Status {
        ASSIGN_OR_RETURN(*freed, UnloadNow(key, reason));
        return absl::OkStatus();
      },
      deadline);
  if (!status.ok()) return status;
  return *freed;
}

absl::StatusOr<AdapterKey> AdapterWatcher::LoadNow(AdapterKey key) {
  ASSIGN_OR_RETURN(const FolderScan scan, ScanSameRoot());
  if (key.version == 0) {
    for (const AdapterKey& version : scan.versions) {  // in order
      if (version.name == key.name) key.version = version.version;
    }
  }
  if (scan.versions.count(key) == 0) {
    return absl::NotFoundError(absl::StrCat(options_.root, ": has no ",
                                            key.version == 0 ? "version" : "such version", " of ",
                                            key.name, " with a ", kReadyFile));
  }
  const auto [found, is_new] = known_.try_emplace(key);
  Known& known = found->second;
  if (is_new) registry_->Discover(key);
  UnloadIfGone(key, &known);
  if (known.available) return key;
  known.failures = 0;
  LoadVersion(key, &known);
  if (known.available) return key;
  if (known.refusal.ok()) return absl::UnavailableError("the server is stopping");
  // The caller's own, as in Ask.
  return absl::Status(known.refusal.code(), known.refusal.message());
}

absl::StatusOr<std::vector<FreedAdapter>> AdapterWatcher::UnloadNow(const AdapterKey& key,
                                                                    const std::string& reason) {
  const auto found = known_.find(key);
  if (found == known_.end() || !found->second.available) {
    return absl::FailedPreconditionError(
        absl::StrCat("adapter \"", key.name, "\" version ", key.version, " is not available"));
  }
  registry_->Unload(key, reason);
  found->second = Known();
  found->second.unloaded = true;
  return registry_->FreeUnused();
}

bool AdapterWatcher::stopping() const {
  MutexLock lock(&mutex_);
  return stopping_;
}

absl::Status AdapterWatcher::Poll() {
  const absl::StatusOr<FolderScan> scan = ScanSameRoot();
  ReportReadable(scan.status());
  if (scan.ok()) {
    ReportReadableNames(*scan);
    WarnOfForeignEntries(*scan);
    // Before versions: what a label keeps calls from must not answer for a moment.
    labels_.Poll(*scan);
    LoadNew(*scan);
    UnloadAbsent(*scan);
  } else {
    for (auto& [key, known] : known_) known.absent_polls = 0;
  }
  registry_->FreeUnused();
  return scan.status();
}

absl::StatusOr<FolderScan> AdapterWatcher::ScanSameRoot() {
  absl::StatusOr<FolderScan> scan = ScanAdapterFolder(options_.root);
  if (!scan.ok()) return scan;
  if (root_.has_value() && !(*root_ == scan->root)) {
    if (!HoldsAllAvailable(*scan)) {
      return absl::UnavailableError(absl::StrCat(
          options_.root, ": has become another directory, which lacks versions that are served"));
    }
    for (auto& [key, known] : known_) known.absent_polls = 0;
  }
  root_ = scan->root;
  return scan;
}

bool AdapterWatcher::HoldsAllAvailable(const FolderScan& scan) const {
  return std::all_of(known_.begin(), known_.end(), [&scan](const auto& entry) {
    const Known& known = entry.second;
    return !known.available || known.gone || scan.versions.count(entry.first) > 0;
  });
}

void AdapterWatcher::ReportReadable(const absl::Status& status) {
  metrics_->AdapterRootReadable(status.ok());
  if (status.ok() == readable_) return;
  readable_ = status.ok();
  if (readable_) {
    LogInfo("the adapter folder is readable again", {{"path", options_.root}});
  } else {
    LogWarning("the adapter folder is not readable; every adapter stays as it is",
               {{"path", options_.root}, {"error", std::string(status.message())}});
  }
}

void AdapterWatcher::ReportReadableNames(const FolderScan& scan) {
  for (const auto& [name, error] : scan.unreadable_names) {
    if (unreadable_names_.count(name) > 0) continue;
    LogWarning("an adapter is not readable; what is served of it stays as it is",
               {{"path", absl::StrCat(options_.root, "/", name)}, {"error", error}});
  }
  for (const auto& [name, error] : unreadable_names_) {
    if (scan.unreadable_names.count(name) > 0) continue;
    LogInfo("an adapter is readable again", {{"path", absl::StrCat(options_.root, "/", name)}});
  }
  unreadable_names_ = scan.unreadable_names;
}

void AdapterWatcher::WarnOfForeignEntries(const FolderScan& scan) {
  for (const std::string& entry : scan.foreign_entries) {
    if (warned_entries_.size() >= kMaxWarnedEntries || !warned_entries_.insert(entry).second) {
      continue;
    }
    LogWarning("ignored in the adapter folder: not an adapter's name",
               {{"path", absl::StrCat(options_.root, "/", entry)}});
  }
}

void AdapterWatcher::LoadNew(const FolderScan& scan) {
  for (const AdapterKey& key : scan.versions) {
    const auto [known, is_new] = known_.try_emplace(key);
    if (is_new) registry_->Discover(key);
    UnloadIfGone(key, &known->second);
    known->second.absent_polls = 0;
  }
  std::vector<AdapterKey> order(scan.versions.begin(), scan.versions.end());
  std::sort(order.begin(), order.end(), [](const AdapterKey& a, const AdapterKey& b) {
    return a.name != b.name ? a.name < b.name : a.version > b.version;
  });
  for (const AdapterKey& key : order) {
    if (stopping()) return;
    Known& known = known_.at(key);
    if (!known.available && !known.unloaded && ShouldTry(key, &known)) LoadVersion(key, &known);
    AnswerRequests();
  }
}

void AdapterWatcher::UnloadIfGone(const AdapterKey& key, Known* known) {
  if (!known->gone) return;
  registry_->Unload(key, kRemovedReason);
  registry_->Discover(key);
  *known = Known();
}

bool AdapterWatcher::ShouldTry(const AdapterKey& key, Known* known) const {
  if (known->failures == 0) return true;
  std::string signature = VersionSignature(AdapterDirectory(options_.root, key));
  const bool changed = signature != known->signature;
  const bool settled = signature == known->latest_signature;
  known->latest_signature = std::move(signature);
  if (changed && settled) {
    known->failures = 0;
    return true;
  }
  return clock_->Now() >= known->next_try && (changed || MayPass(known->refusal.code()));
}

void AdapterWatcher::LoadVersion(const AdapterKey& key, Known* known) {
  const std::string directory = AdapterDirectory(options_.root, key);
  // Taken before the files are read: a change while they are read is a change.
  known->signature = known->latest_signature = VersionSignature(directory);
  if (!known->refusal.ok() || known->unloaded) registry_->Discover(key);
  known->unloaded = false;
  registry_->BeginLoad(key);
  const absl::Time start = clock_->Now();
  absl::StatusOr<AdapterHandle> adapter = load_(directory);
  if (absl::IsCancelled(adapter.status())) return;
  if (!adapter.ok()) {
    Refuse(key, adapter.status(), known);
    return;
  }
  PRICER_CHECK((*adapter)->key == key);
  const absl::Duration load_time = clock_->Now() - start;
  std::vector<LogField> fields = FieldsOf(key);
  fields.push_back({"digest", (*adapter)->digest});
  fields.push_back({"load_seconds", absl::StrCat(absl::ToDoubleSeconds(load_time))});
  if (!(*adapter)->warning.empty()) fields.push_back({"warning", (*adapter)->warning});
  registry_->Publish(*std::move(adapter), load_time);
  known->available = true;
  known->failures = 0;
  known->refusal = absl::OkStatus();
  LogInfo("adapter available", fields);
}

void AdapterWatcher::Refuse(const AdapterKey& key, const absl::Status& reason, Known* known) {
  registry_->Refuse(key, reason);
  const double factor = static_cast<double>(1 << std::min(known->failures, kMaxDoublings));
  known->refusal = reason;
  known->next_try =
      clock_->Now() + std::min(options_.max_retry_delay, options_.min_retry_delay * factor);
  ++known->failures;
  std::vector<LogField> fields = FieldsOf(key);
  fields.push_back({"error", std::string(reason.message())});
  LogError("adapter refused", fields);
}

void AdapterWatcher::UnloadAbsent(const FolderScan& scan) {
  for (auto entry = known_.begin(); entry != known_.end();) {
    auto& [key, known] = *entry;
    known.absent_polls = scan.MayHold(key) ? 0 : known.absent_polls + 1;
    if (known.absent_polls < kAbsentPollsToUnload) {
      ++entry;
      continue;
    }
    if (known.available) {
      const bool asked =
          registry_->AskedByNumberSince(key, clock_->Now() - options_.keep_asked_for);
      if (asked && registry_->KeepGone(key)) {
        if (!std::exchange(known.gone, true)) {
          LogInfo("adapter gone from the folder, kept for calls that ask for its number",
                  FieldsOf(key));
        }
        ++entry;
        continue;
      }
      registry_->Unload(key, kRemovedReason);
      if (asked) {
        LogWarning(
            "adapter unloaded: gone from the folder and from memory, though calls ask for it",
            FieldsOf(key));
      } else {
        LogInfo("adapter unloaded: gone from the folder", FieldsOf(key));
      }
    } else {
      registry_->Forget(key);
    }
    entry = known_.erase(entry);
  }
}

}  // namespace pricer
