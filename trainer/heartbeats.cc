#include "trainer/heartbeats.h"

#include <exception>
#include <utility>

#include "absl/strings/str_cat.h"

namespace pricer {

Heartbeats::Heartbeats(int rank, int size, Add add, const Clock* clock)
    : rank_(rank),
      size_(size),
      add_(std::move(add)),
      clock_(clock),
      looked_(clock->Now()),
      counts_(size, 0),
      seen_(size, clock->Now()),
      thread_([this] { Run(); }) {}

Heartbeats::~Heartbeats() {
  {
    const MutexLock lock(&mutex_);
    stopping_ = true;
    wake_.SignalAll();
  }
  thread_.join();
}

void Heartbeats::Run() {
  for (;;) {
    Look();
    const MutexLock lock(&mutex_);
    if (!stopping_) wake_.WaitWithTimeout(&mutex_, kInterval);
    if (stopping_) return;
  }
}

void Heartbeats::Look() {
  try {
    const absl::Time began = clock_->Now();
    std::vector<int64_t> counts;
    for (int rank = 0; rank < size_; ++rank) counts.push_back(add_(rank, rank == rank_ ? 1 : 0));
    const MutexLock lock(&mutex_);
    store_is_gone_ = false;
    looked_ = began;
    for (int rank = 0; rank < size_; ++rank) {
      if (counts[rank] != counts_[rank]) seen_[rank] = looked_;
    }
    counts_ = std::move(counts);
  } catch (const std::exception&) {
    const MutexLock lock(&mutex_);
    store_is_gone_ = true;
  }
}

std::vector<int> Heartbeats::SilentFor(absl::Duration limit) const {
  const MutexLock lock(&mutex_);
  std::vector<int> silent;
  for (int rank = 0; rank < size_; ++rank) {
    if (rank != rank_ && looked_ - seen_[rank] >= limit) silent.push_back(rank);
  }
  return silent;
}

bool Heartbeats::store_is_gone() const {
  const MutexLock lock(&mutex_);
  return store_is_gone_;
}

absl::Duration Heartbeats::store_silence() const {
  const MutexLock lock(&mutex_);
  return clock_->Now() - looked_;
}

std::string NameRanks(const std::vector<int>& ranks) {
  std::string text = ranks.size() == 1 ? "rank " : "ranks ";
  for (size_t i = 0; i < ranks.size(); ++i) {
    if (i > 0) absl::StrAppend(&text, i + 1 == ranks.size() ? " and " : ", ");
    absl::StrAppend(&text, ranks[i]);
  }
  return text;
}

}  // namespace pricer
