#pragma once

#include <atomic>
#include <cstdint>

namespace pricer {

// How many rows an item is expected to cost beside those of its prompt, learnt from items that were
// computed: the price trees of the token head. A mean over the latest items; before the first, the
// most that there can be. Thread-safe.
class RowEstimate {
 public:
  explicit RowEstimate(int64_t most) : mean_(static_cast<double>(most)) {}

  int64_t rows() const;
  // An item cost so many. From one thread at a time.
  void Add(int64_t rows);

 private:
  std::atomic<double> mean_;
  int64_t items_ = 0;  // at most what the mean is over
};

}  // namespace pricer
