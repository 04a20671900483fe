#include "server/adapter_watches.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "pricer/v1/adapters.pb.h"
#include "server/adapter_proto.h"
#include "server/grpc_status.h"
#include "server/wire_message.h"

namespace pricer {
namespace {

absl::Status StoppingError() { return absl::UnavailableError("the server is stopping"); }

}  // namespace

// gRPC calls back on threads of its own; changes are sent from the thread of the watches.
class AdapterWatch final : public WatchReactor {
 public:
  AdapterWatch(AdapterWatches* watches, std::string name,
               std::function<void(const absl::Status&)> ended)
      : watches_(watches), name_(std::move(name)), ended_(std::move(ended)) {}

  void End(const absl::Status& status) {
    MutexLock lock(&mutex_);
    EndLocked(status);
  }

  // Writes what has changed, unless something is being written.
  void Send() {
    MutexLock lock(&mutex_);
    SendLocked();
  }

  void OnWriteDone(bool ok) override {
    MutexLock lock(&mutex_);
    writing_ = false;
    if (!ok) EndLocked(absl::CancelledError("the watch has ended"));
    SendLocked();
  }

  void OnCancel() override { End(absl::CancelledError("the caller has gone")); }

  void OnDone() override {
    watches_->Remove(this);
    ended_(status_);
    delete this;
  }

 private:
  void SendLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (writing_ || finished_) return;
    const bool is_first = since_ < 0;
    const AdapterChanges changes = watches_->registry_->ChangesSince(is_first ? 0 : since_, name_);
    since_ = changes.latest;
    v1::WatchAdaptersResponse response;
    if (changes.left.has_value()) {
      for (auto key = told_.begin(); key != told_.end();) {
        if (changes.left->count(*key) > 0) {
          ++key;
          continue;
        }
        v1::AdapterVersion* const gone = response.add_gone();
        gone->set_name(key->name);
        gone->set_version(key->version);
        key = told_.erase(key);
      }
    }
    for (const AdapterStatus& status : changes.changed) {
      AdapterStatusToProto(status, response.add_versions());
      told_.insert(status.key);
    }
    if (!is_first && response.versions().empty() && response.gone().empty()) return;
    message_.Clear();
    if (const absl::Status status = SerializeResponse(response, &message_); !status.ok()) {
      EndLocked(status);
      return;
    }
    writing_ = true;
    StartWrite(&message_);
  }

  void EndLocked(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (std::exchange(finished_, true)) return;
    status_ = status;
    Finish(ToGrpcStatus(status));
  }

  AdapterWatches* const watches_;
  const std::string name_;
  const std::function<void(const absl::Status&)> ended_;

  Mutex mutex_;
  int64_t since_ ABSL_GUARDED_BY(mutex_) = -1;  // nothing was sent
  std::set<AdapterKey> told_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  // Not changed after the end.
  absl::Status status_;
  // Not changed while it is written.
  grpc::ByteBuffer message_;
};

AdapterWatches::AdapterWatches(AdapterRegistry* registry)
    : registry_(registry), thread_([this] { Run(); }) {
  registry_->SetChangeListener([this] {
    MutexLock lock(&changes_mutex_);
    has_changes_ = true;
    changed_.Signal();
  });
}

AdapterWatches::~AdapterWatches() {
  registry_->SetChangeListener(nullptr);
  EndAll();
  {
    MutexLock lock(&changes_mutex_);
    stopping_ = true;
    changed_.Signal();
  }
  thread_.join();
}

WatchReactor* AdapterWatches::Start(const std::string& name, const absl::Status& status,
                                    std::function<void(const absl::Status&)> ended) {
  auto* const watch = new AdapterWatch(this, name, std::move(ended));
  if (!status.ok()) {
    watch->End(status);
  } else if (const absl::Status added = Add(watch); !added.ok()) {
    watch->End(added);
  } else {
    watch->Send();
  }
  return watch;
}

absl::Status AdapterWatches::Add(AdapterWatch* watch) {
  MutexLock lock(&mutex_);
  if (ended_) return StoppingError();
  if (watches_.size() >= kMaxWatches) {
    return absl::ResourceExhaustedError(
        absl::StrCat("expected at most ", kMaxWatches, " calls of WatchAdapters at once"));
  }
  watches_.insert(watch);
  return absl::OkStatus();
}

void AdapterWatches::Remove(AdapterWatch* watch) {
  MutexLock lock(&mutex_);
  watches_.erase(watch);
}

void AdapterWatches::EndAll() {
  MutexLock lock(&mutex_);
  ended_ = true;
  for (AdapterWatch* const watch : watches_) watch->End(StoppingError());
}

void AdapterWatches::Run() {
  while (true) {
    {
      MutexLock lock(&changes_mutex_);
      while (!has_changes_ && !stopping_) changed_.Wait(&changes_mutex_);
      if (stopping_) return;
      has_changes_ = false;
    }
    // None of them goes while the lock is held.
    MutexLock lock(&mutex_);
    for (AdapterWatch* const watch : watches_) watch->Send();
  }
}

}  // namespace pricer
