#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>

namespace pricer {

// Counts the bytes that are held. Outlives what it has given. Not thread-safe.
class MemoryMeter {
 public:
  // The memory of one tensor, given back with its last owner.
  using Buffer = std::shared_ptr<const int64_t>;

  Buffer Take(int64_t bytes) {
    live_ += bytes;
    peak_ = std::max(peak_, live_);
    return {new int64_t(bytes), [this](const int64_t* held) {
              live_ -= *held;
              delete held;
            }};
  }

  int64_t live() const { return live_; }
  int64_t peak() const { return peak_; }
  void ResetPeak() { peak_ = live_; }

 private:
  int64_t live_ = 0;
  int64_t peak_ = 0;
};

}  // namespace pricer
