#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "base/mutex.h"

namespace pricer {

// A few threads that run what they are given, mostly in the order given, off the threads that
// answer calls. Thread-safe.
class WorkerPool {
 public:
  // At most `max_waiting` pieces of work wait for a thread.
  WorkerPool(int threads, size_t max_waiting);
  // Stop().
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  // ResourceExhausted where too much waits, Unavailable after Stop; then `work` is not run.
  absl::Status Submit(std::function<void()> work);

  // For what was let in already and has one piece of work here at a time: waits, however much does.
  // Unavailable as above.
  absl::Status SubmitOngoing(std::function<void()> work);

  // For what ends a call: runs before all that waits, and takes no room of it. Unavailable as
  // above.
  absl::Status SubmitFirst(std::function<void()> work);

  // Runs what waits and ends the threads. One caller.
  void Stop();

 private:
  absl::Status SubmitUpTo(size_t max_waiting, std::function<void()> work);
  void Run();

  const size_t max_waiting_;

  Mutex mutex_;
  CondVar changed_;
  std::deque<std::function<void()>> first_ ABSL_GUARDED_BY(mutex_);
  std::deque<std::function<void()>> waiting_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;

  std::vector<std::thread> threads_;
};

}  // namespace pricer
