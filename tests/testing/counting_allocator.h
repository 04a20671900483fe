#pragma once

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <limits>
#include <mutex>
#include <unordered_map>

namespace pricer::testing {

// Counts the bytes of all tensors that are made while it lives. It must outlive them. One at a
// time; tensors may be made by several threads.
class CountingAllocator : public c10::Allocator {
 public:
  CountingAllocator() : inner_(c10::GetAllocator(c10::kCPU)) {
    current_ = this;
    c10::SetAllocator(c10::kCPU, this);
  }
  ~CountingAllocator() override {
    c10::SetAllocator(c10::kCPU, inner_);
    current_ = nullptr;
  }
  CountingAllocator(const CountingAllocator&) = delete;
  CountingAllocator& operator=(const CountingAllocator&) = delete;

  c10::DataPtr allocate(size_t bytes) override {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      TORCH_CHECK_WITH(OutOfMemoryError, live_ + static_cast<int64_t>(bytes) <= limit_,
                       "no room for ", bytes, " bytes");
    }
    c10::DataPtr data = inner_->allocate(bytes);
    const std::lock_guard<std::mutex> lock(mutex_);
    const int64_t counted = uncounted_ > 0 ? 0 : static_cast<int64_t>(bytes);
    if (data.get() != nullptr) sizes_[data.get()] = counted;
    live_ += counted;
    peak_ = std::max(peak_, live_);
    // Some of libtorch's code wants the data for its context.
    void* const raw = data.release_context();
    return {raw, raw, &Free, c10::Device(c10::kCPU)};
  }

  c10::DeleterFnPtr raw_deleter() const override { return &Free; }

  void copy_data(void* to, const void* from, size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }

  int64_t live_bytes() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return live_;
  }
  int64_t peak_bytes() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return peak_;
  }
  // The one that lives, or null.
  static CountingAllocator* current() { return current_; }

  // While one lives, tensors that are made are not counted.
  class Uncounted {
   public:
    Uncounted() { ++uncounted_; }
    ~Uncounted() { --uncounted_; }
    Uncounted(const Uncounted&) = delete;
    Uncounted& operator=(const Uncounted&) = delete;
  };

  // More than so many live bytes throw c10::OutOfMemoryError.
  void SetLimit(int64_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    limit_ = bytes;
  }
  // From here on the peak is that of what follows.
  void ResetPeak() {
    const std::lock_guard<std::mutex> lock(mutex_);
    peak_ = live_;
  }

 private:
  static void Free(void* data) {
    if (data == nullptr) return;
    CountingAllocator& self = *current_;
    {
      const std::lock_guard<std::mutex> lock(self.mutex_);
      const auto found = self.sizes_.find(data);
      self.live_ -= found->second;
      self.sizes_.erase(found);
    }
    self.inner_->raw_deallocate(data);
  }

  static inline CountingAllocator* current_ = nullptr;
  static inline std::atomic<int> uncounted_ = 0;

  c10::Allocator* const inner_;
  mutable std::mutex mutex_;
  std::unordered_map<void*, int64_t> sizes_;
  int64_t live_ = 0;
  int64_t peak_ = 0;
  int64_t limit_ = std::numeric_limits<int64_t>::max();
};

}  // namespace pricer::testing
