#pragma once

#include <functional>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "base/mutex.h"

namespace pricer {

// Calls a function again and again on a thread of its own, the first time after one interval.
class Ticker {
 public:
  Ticker(absl::Duration interval, std::function<void()> tick);
  // Waits for a call that runs.
  ~Ticker();
  Ticker(const Ticker&) = delete;
  Ticker& operator=(const Ticker&) = delete;

 private:
  void Run();
  // False = to stop.
  bool WaitForNext();

  const absl::Duration interval_;
  const std::function<void()> tick_;

  Mutex mutex_;
  CondVar changed_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;

  // Last, so that it starts when all else is made.
  std::thread thread_;
};

}  // namespace pricer
