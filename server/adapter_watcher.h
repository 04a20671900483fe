#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "server/adapter_folder.h"
#include "server/adapter_registry.h"
#include "server/label_follower.h"
#include "server/loaded_adapter.h"
#include "server/metrics.h"

namespace pricer {

struct AdapterWatcherOptions {
  // The adapter folder.
  std::string root;
  // Between two looks at the folder. Polling, because network file systems announce nothing.
  absl::Duration poll_interval = absl::Seconds(1);
  // Before a refused version is tried again, if there is a reason to; doubled with every failure.
  absl::Duration min_retry_delay = absl::Seconds(1);
  absl::Duration max_retry_delay = absl::Minutes(5);
  // A version that a call has asked for by its number so lately is not unloaded though it is gone
  // from the folder: a job of many calls names the version that it began with.
  absl::Duration keep_asked_for = absl::Minutes(10);
};

// Makes the registry follow the adapter folder, its labels first, from one thread of its own. Loads
// run on that thread, one after the other, newest versions of a name first: they take nothing from
// requests but the processor.
//
// 1. A version is loaded when it is found with its marker. It is never loaded again while it is
//    available: versions are immutable, a changed adapter is a new version.
// 2. A refused version is tried again at once when its files have changed and then stayed the same
//    for two looks in a row: it was being copied. Otherwise it is tried when its files changed, or
//    when the reason may pass by itself (I/O, memory), never before its retry delay is over.
// 3. A version is unloaded when two looks in a row at the same directory did not find it; for as
//    long as calls ask for it by its number, and keep_asked_for longer, they alone still get it,
//    unless memory has no room for it: it cannot be read again. One that comes back is loaded anew.
//    A root that cannot be read, or that has become another directory which lacks a version that is
//    served, changes nothing: it counts as unreadable. Another directory that holds all versions
//    served, such as a volume mounted anew, takes the old one's place.
// 4. What an operator unloads stays away until an operator loads it again, it is gone from the
//    folder, or the server is started anew.
class AdapterWatcher {
 public:
  // Reads and checks the version in a directory; may take long. Cancelled = the server is stopping.
  using LoadFunction = std::function<absl::StatusOr<AdapterHandle>(const std::string& directory)>;

  // `registry`, `metrics` and `clock` must outlive the watcher.
  AdapterWatcher(const AdapterWatcherOptions& options, LoadFunction load, AdapterRegistry* registry,
                 Metrics* metrics, const Clock* clock);
  // Stop().
  ~AdapterWatcher();
  AdapterWatcher(const AdapterWatcher&) = delete;
  AdapterWatcher& operator=(const AdapterWatcher&) = delete;

  // One look at the folder, with all loads and unloads that follow from it. Unavailable where the
  // root was not readable. Not while the thread runs.
  absl::Status Poll();

  // Has the registry know what was just written to an adapter's labels. Thread-safe.
  void RefreshLabels(const std::string& name) { labels_.Refresh(name); }

  // What operators ask for. Each waits until the thread has done it, between two loads, at most
  // until `deadline`; Unavailable where the thread does not run. Thread-safe.
  //
  // Looks at the folder at once and loads a version that is not available, whatever it was refused
  // for before; 0 = the newest in the folder. Returns which. NotFound where the folder has none,
  // else the reason why it is refused.
  absl::StatusOr<AdapterKey> Load(const AdapterKey& key, absl::Time deadline);
  // FailedPrecondition where it is not available. `reason` is what the registry tells from then on.
  absl::StatusOr<std::vector<FreedAdapter>> Unload(const AdapterKey& key, const std::string& reason,
                                                   absl::Time deadline);

  // Polls on a thread of its own, the first time after one interval.
  void Start();
  // Has the thread end after the load that runs; does not wait for it.
  void RequestStop();
  // RequestStop, and waits for the thread. False where `deadline` passed first: the thread is still
  // there, and the watcher cannot be destroyed before the load returns. One caller.
  bool Stop(absl::Time deadline = absl::InfiniteFuture());

 private:
  // What the watcher remembers of a version in the folder.
  struct Known {
    bool available = false;
    int absent_polls = 0;
    // Available, but gone from the folder: kept for calls that ask for it by its number.
    bool gone = false;
    // By an operator.
    bool unloaded = false;
    // Why it was refused; OK = it was not.
    absl::Status refusal;
    std::string signature;         // when it was tried
    std::string latest_signature;  // at the latest look
    int failures = 0;
    absl::Time next_try = absl::InfinitePast();
  };

  // Of operators.
  struct Request {
    std::function<absl::Status()> work;
    std::optional<absl::Status> status;
  };

  absl::Status Ask(std::function<absl::Status()> work, absl::Time deadline);
  void AnswerRequests();
  absl::StatusOr<AdapterKey> LoadNow(AdapterKey key);
  absl::StatusOr<std::vector<FreedAdapter>> UnloadNow(const AdapterKey& key,
                                                      const std::string& reason);
  absl::StatusOr<FolderScan> ScanSameRoot();
  bool HoldsAllAvailable(const FolderScan& scan) const;
  void ReportReadable(const absl::Status& status);
  void ReportReadableNames(const FolderScan& scan);
  void WarnOfForeignEntries(const FolderScan& scan);
  void LoadNew(const FolderScan& scan);
  void LoadVersion(const AdapterKey& key, Known* known);
  void Refuse(const AdapterKey& key, const absl::Status& reason, Known* known);
  // What has come back may be another.
  void UnloadIfGone(const AdapterKey& key, Known* known);
  bool ShouldTry(const AdapterKey& key, Known* known) const;
  void UnloadAbsent(const FolderScan& scan);
  void Run();
  // Answers requests meanwhile. False = to stop.
  bool WaitForNextPoll();
  bool stopping() const;

  const AdapterWatcherOptions options_;
  const LoadFunction load_;
  AdapterRegistry* const registry_;
  Metrics* const metrics_;
  const Clock* const clock_;
  LabelFollower labels_;

  // Only by whoever polls.
  std::map<AdapterKey, Known> known_;
  std::optional<DirectoryIdentity> root_;
  std::map<std::string, std::string> unreadable_names_;
  std::set<std::string> warned_entries_;
  bool readable_ = true;

  mutable Mutex mutex_;
  CondVar changed_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool running_ ABSL_GUARDED_BY(mutex_) = false;
  std::deque<std::shared_ptr<Request>> requests_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace pricer
