#pragma once

#include <c10/core/Allocator.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "base/mutex.h"

namespace pricer {

// Memory for libtorch's CPU tensors. The heap of the C library grows without end under tensors of
// ever other sizes, since small blocks come to lie between the large ones. Here large blocks are
// mapped from the system, in huge pages where they fill some, and used again: what is held, in use
// or not, stays within kSlack of the most that was ever in use at one time. Small blocks are the
// heap's. Thread-safe.
class TensorMemory : public c10::Allocator {
 public:
  // Blocks from here on are large.
  static constexpr size_t kLargeBytes = size_t{1} << 18;
  static constexpr double kSlack = 0.125;

  // Makes this the allocator of CPU tensors until the process ends, where it is not so already, and
  // bounds what oneDNN keeps, unless ONEDNN_PRIMITIVE_CACHE_CAPACITY says how much. To be called
  // before the first tensor is made.
  static TensorMemory& Install();

  // Bytes of large blocks, as they are mapped.
  struct Usage {
    int64_t used = 0;
    int64_t peak_used = 0;
    int64_t held = 0;  // used or waiting to be used again
  };
  Usage usage() const ABSL_LOCKS_EXCLUDED(mutex_);

  // c10::Allocator's. Throws c10::Error where the system has no memory left.
  c10::DataPtr allocate(size_t bytes) override ABSL_LOCKS_EXCLUDED(mutex_);
  c10::DeleterFnPtr raw_deleter() const override;
  void copy_data(void* to, const void* from, size_t bytes) const override;

 private:
  TensorMemory() = default;
  struct Block {
    void* data = nullptr;
    size_t bytes = 0;
  };
  static void Free(void* data);
  void* Take(size_t bytes) ABSL_LOCKS_EXCLUDED(mutex_);
  void GiveBack(void* data) ABSL_LOCKS_EXCLUDED(mutex_);
  // A waiting block that is large enough and not much larger; no data where there is none.
  Block FindWaiting(size_t bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Unmaps those that have waited longest, so that a new block of so many bytes may come.
  void MakeRoom(size_t bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  mutable Mutex mutex_;
  absl::flat_hash_map<void*, size_t> in_use_ ABSL_GUARDED_BY(mutex_);
  std::vector<Block> waiting_ ABSL_GUARDED_BY(mutex_);  // those that wait longest first
  size_t used_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t waiting_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t peak_used_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace pricer
