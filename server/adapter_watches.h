#pragma once

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <functional>
#include <set>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "base/mutex.h"
#include "server/adapter_registry.h"

namespace pricer {

using WatchReactor = grpc::ServerWriteReactor<grpc::ByteBuffer>;

// Of all callers at once.
inline constexpr size_t kMaxWatches = 64;

class AdapterWatch;

// The calls of WatchAdapters. Each holds one message at a time, however slowly it is read: changes
// in the meantime make up the next. Thread-safe.
class AdapterWatches {
 public:
  // `registry` must outlive the watches, which are its change listener.
  explicit AdapterWatches(AdapterRegistry* registry);
  // EndAll(); the reactors may outlive this.
  ~AdapterWatches();
  AdapterWatches(const AdapterWatches&) = delete;
  AdapterWatches& operator=(const AdapterWatches&) = delete;

  // Answers a call that watches an adapter, all for an empty name; an error ends it at once, and so
  // does one watch too many, with ResourceExhausted. The reactor deletes itself; `ended` is called
  // once, before that.
  WatchReactor* Start(const std::string& name, const absl::Status& status,
                      std::function<void(const absl::Status&)> ended);

  // Ends all with Unavailable, and all that come later.
  void EndAll();

 private:
  friend class AdapterWatch;

  absl::Status Add(AdapterWatch* watch);
  void Remove(AdapterWatch* watch);
  void Run();

  AdapterRegistry* const registry_;

  // Before the watches' own and the registry's.
  Mutex mutex_;
  std::set<AdapterWatch*> watches_ ABSL_GUARDED_BY(mutex_);
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;

  // After all others.
  Mutex changes_mutex_;
  CondVar changed_;
  bool has_changes_ ABSL_GUARDED_BY(changes_mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(changes_mutex_) = false;

  std::thread thread_;
};

}  // namespace pricer
