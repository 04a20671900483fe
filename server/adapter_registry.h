#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "model/adapter_labels.h"
#include "server/adapter_memory.h"
#include "server/adapter_route.h"
#include "server/loaded_adapter.h"
#include "server/metrics.h"

namespace pricer {

// What is known of one version.
struct AdapterStatus {
  AdapterKey key;
  AdapterState state = AdapterState::kStart;
  // kEnd: why it was refused or unloaded. kAvailable: its warning, if any.
  std::string reason;
  // Code of the refusal; OK for a version that was not refused.
  absl::StatusCode refusal = absl::StatusCode::kOk;
  std::string digest;
  // Bytes that its tensors take in memory, when they are there.
  int64_t memory_bytes = 0;
  // Of a version that is available.
  AdapterPlace place;
  absl::Duration load_time;
  absl::Time changed_at;
  // Answers requests that name no version. Not said of the base, which no default leads to.
  bool serves_by_default = false;
  // Those that lead here, sorted.
  std::vector<std::string> labels;
};

// What is known of an adapter's labels.
struct AdapterLabelStatus {
  // As last read of its labels.json.
  AdapterLabels labels;
  // Versions that labels lead to here: a label follows the file as soon as its version is
  // available, and until then stays where it was.
  std::map<std::string, int64_t> live;
  // Why the file cannot be read now; empty = it can.
  std::string error;
};

// A version whose tensors were freed, and what that gave back.
struct FreedAdapter {
  AdapterKey key;
  TierBytes bytes{};
};

// Changes are numbered, from 1.
struct AdapterChanges {
  int64_t latest = 0;
  // Versions that changed since the number that was asked for, as they are now.
  std::vector<AdapterStatus> changed;
  // Where versions were dropped from the list since: those that are left.
  std::optional<std::set<AdapterKey>> left;
};

// What is live. The watcher tells it what happens to versions; requests take handles from it.
// Thread-safe; no call loads, frees or waits while the lock is held, so that requests never wait
// for an adapter to come or go.
//
// The registry holds on to an unloaded version until the last request has let go of it, so that
// FreeUnused, and not a request, frees its memory.
class AdapterRegistry {
 public:
  // `default_adapter` answers requests that name none; empty = the only adapter there is. `metrics`
  // and `clock` must outlive the registry.
  AdapterRegistry(std::string default_adapter, Metrics* metrics, const Clock* clock);

  // Holds the tensors of what is published from now on, and must outlive all other calls; before,
  // nobody does.
  void SetMemory(AdapterMemory* memory);

  // The version that a request gets; absent `version` = the one that `stable` leads to, which is
  // the newest available one until that label is set. NotFound names what was asked for and lists
  // what there is; FailedPrecondition for a version that was refused as made for another base, and
  // for a base that gives no prices; InvalidArgument where no name is given and several adapters
  // could be meant. The base is never meant by no name.
  absl::StatusOr<AdapterHandle> Find(absl::string_view name, std::optional<int64_t> version) const;

  // What answers a call. With a version: that one. With a label: the version that it leads to. With
  // neither: `stable`, with canary. Beside `stable`, however it was come by, there is the shadow.
  // Errors as Find; NotFound for a label that there is not names those that there are.
  absl::StatusOr<AdapterRoute> Route(absl::string_view name, std::optional<int64_t> version,
                                     absl::string_view label) const;

  // Whether a call (Route, not Find) has asked for the version by its number since.
  bool AskedByNumberSince(const AdapterKey& key, absl::Time since) const;

  // NotFound where no version of the adapter is known.
  absl::StatusOr<AdapterLabelStatus> Labels(absl::string_view name) const;

  // Every version known, ordered by name and version; an empty `name` = all adapters. The base is
  // one of them.
  std::vector<AdapterStatus> List(absl::string_view name = "") const;

  // As List, but what has changed since change number `since`; 0 = all.
  AdapterChanges ChangesSince(int64_t since, absl::string_view name = "") const;

  // Called after each change, under the registry's lock: it must be quick and ask the registry
  // nothing. Null ends it.
  void SetChangeListener(std::function<void()> listener);

  // What requests for the base get, or why they get nothing. Counts among no versions of the
  // folder.
  void SetBase(absl::StatusOr<AdapterHandle> base);

  // The rest is for the watcher.

  // kStart: found in the folder, or found again.
  void Discover(const AdapterKey& key);
  // kLoading. REQUIRES: discovered.
  void BeginLoad(const AdapterKey& key);
  // kAvailable: from now on requests may get it.
  void Publish(AdapterHandle adapter, absl::Duration load_time);
  // kEnd, with the reason. Other versions stay as they are.
  void Refuse(const AdapterKey& key, const absl::Status& reason);
  // From now on requests get it by its number alone. False where its tensors are not in memory, so
  // that there is nothing to keep. REQUIRES: available.
  bool KeepGone(const AdapterKey& key);
  // kUnloading, with the reason: requests get it no more. REQUIRES: available.
  void Unload(const AdapterKey& key, const std::string& reason);
  // Drops the record of a refused version that is gone from the folder.
  void Forget(const AdapterKey& key);
  // What an adapter's labels.json says from now on; generation 0 = there is none.
  void SetLabels(const std::string& name, AdapterLabels labels);
  // The file cannot be read: what was read of it before holds on. Where nothing was, calls that ask
  // for no version fail with FailedPrecondition rather than get one that nobody chose.
  void SetLabelsError(const std::string& name, const std::string& error);
  // Frees unloaded versions that no request holds any more, on the calling thread: kEnd.
  std::vector<FreedAdapter> FreeUnused();

 private:
  struct Record {
    AdapterStatus status;
    AdapterHandle adapter;  // kAvailable alone
    // It is no longer in the folder: no label leads to it, and it is not the newest.
    bool gone = false;
    // When a call asked for it by its number.
    mutable absl::Time asked_at = absl::InfinitePast();
    int64_t change = 0;  // the latest
  };
  struct LabelRecord {
    AdapterLabels file;
    std::string error;
    // Every version in it is available.
    std::map<std::string, LabelTarget> live;
  };

  // What is said of a version changed, or of all of an adapter: labels and the default move.
  void Changed(Record* record) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void AllChanged(absl::string_view name) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Dropped() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // With what is told beside its own state.
  AdapterStatus StatusOf(const Record& record) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SetState(Record* record, AdapterState state) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ReportStates() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Once nothing of the version is held any more: its metrics end, and kUnloading becomes kEnd.
  void EndUnloaded(const LoadedAdapter& adapter) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Keeps the list of ended versions short.
  void DropOldestEnded() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<AdapterRoute> RouteOf(absl::string_view name, std::optional<int64_t> version,
                                       absl::string_view label) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Available and in the folder.
  bool IsThere(absl::string_view name, int64_t version) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  const Record* Newest(absl::string_view name) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The record, where it is available.
  const Record* Available(absl::string_view name, int64_t version) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // What a label leads to, or null; `stable` that is not set = the newest.
  const Record* Labelled(absl::string_view name, absl::string_view label) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  const LabelRecord* LabelsOf(absl::string_view name) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Lets labels follow the file as far as their versions are available.
  void UpdateLive(const std::string& name) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status LabelNotFound(absl::string_view name, absl::string_view label) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<std::string> DefaultName() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status NotFound(absl::string_view name, std::optional<int64_t> version) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::string AvailableText() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::string default_adapter_;
  Metrics* const metrics_;
  const Clock* const clock_;

  mutable Mutex mutex_;
  AdapterMemory* memory_ ABSL_GUARDED_BY(mutex_) = nullptr;
  std::map<AdapterKey, Record> records_ ABSL_GUARDED_BY(mutex_);
  // Of adapters that have a labels.json, by name.
  std::map<std::string, LabelRecord> labels_ ABSL_GUARDED_BY(mutex_);
  // Unloaded versions that requests may still hold.
  std::vector<AdapterHandle> retired_ ABSL_GUARDED_BY(mutex_);
  int64_t changes_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t last_drop_ ABSL_GUARDED_BY(mutex_) = 0;
  std::function<void()> change_listener_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace pricer
