#include "server/worker_pool.h"

#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"

namespace pricer {

WorkerPool::WorkerPool(int threads, size_t max_waiting) : max_waiting_(max_waiting) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Run(); });
}

WorkerPool::~WorkerPool() { Stop(); }

absl::Status WorkerPool::Submit(std::function<void()> work) {
  return SubmitUpTo(max_waiting_, std::move(work));
}

absl::Status WorkerPool::SubmitOngoing(std::function<void()> work) {
  return SubmitUpTo(std::numeric_limits<size_t>::max(), std::move(work));
}

absl::Status WorkerPool::SubmitUpTo(size_t max_waiting, std::function<void()> work) {
  MutexLock lock(&mutex_);
  if (stopping_) return absl::UnavailableError("the server is stopping");
  if (waiting_.size() >= max_waiting) {
    return absl::ResourceExhaustedError(
        absl::StrCat("too many calls: ", waiting_.size(), " wait for a thread"));
  }
  waiting_.push_back(std::move(work));
  changed_.Signal();
  return absl::OkStatus();
}

absl::Status WorkerPool::SubmitFirst(std::function<void()> work) {
  MutexLock lock(&mutex_);
  if (stopping_) return absl::UnavailableError("the server is stopping");
  first_.push_back(std::move(work));
  changed_.Signal();
  return absl::OkStatus();
}

void WorkerPool::Stop() {
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    changed_.SignalAll();
  }
  for (std::thread& thread : threads_) {
    if (thread.joinable()) thread.join();
  }
}

void WorkerPool::Run() {
  while (true) {
    std::function<void()> work;
    {
      MutexLock lock(&mutex_);
      while (first_.empty() && waiting_.empty() && !stopping_) changed_.Wait(&mutex_);
      std::deque<std::function<void()>>& queue = first_.empty() ? waiting_ : first_;
      if (queue.empty()) return;
      work = std::move(queue.front());
      queue.pop_front();
    }
    work();
  }
}

}  // namespace pricer
