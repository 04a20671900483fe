#include "model/tensor_memory.h"

#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/alloc_cpu.h>
#include <c10/util/Exception.h>
#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstdlib>

namespace pricer {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
// Blocks of at least this lie on huge pages.
constexpr size_t kHugeBytes = 2 * kHugePage;

// What deleters find.
TensorMemory* installed = nullptr;

// Eight sizes to each power of two, so that blocks are used again by tensors of about their size.
size_t RoundUp(size_t bytes) {
  const size_t step = std::bit_floor(bytes) / 8;
  return (bytes + step - 1) / step * step;
}

void* Map(size_t bytes) {
  const auto map = [](size_t size) {
    void* const data =
        mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    TORCH_CHECK(data != MAP_FAILED, "the system has no memory for a tensor of ", size, " bytes");
    return static_cast<char*>(data);
  };
  if (bytes < kHugeBytes) return map(bytes);
  // What lies around the aligned part goes back.
  char* const begin = map(bytes + kHugePage);
  char* const aligned = begin + (kHugePage - reinterpret_cast<uintptr_t>(begin) % kHugePage);
  munmap(begin, aligned - begin);
  munmap(aligned + bytes, begin + kHugePage - aligned);
  madvise(aligned, bytes, MADV_HUGEPAGE);  // without huge pages it is only slower
  return aligned;
}

}  // namespace

TensorMemory& TensorMemory::Install() {
  // Never destroyed: tensors may be freed until the very end.
  static TensorMemory* const memory = [] {
    // oneDNN keeps the code that it has made for so many shapes. Its default is 1024, some 800 MiB.
    setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "256", /*overwrite=*/0);
    installed = new TensorMemory;
    c10::SetCPUAllocator(installed, /*priority=*/1);
    return installed;
  }();
  return *memory;
}

TensorMemory::Usage TensorMemory::usage() const {
  const MutexLock lock(&mutex_);
  return {.used = static_cast<int64_t>(used_),
          .peak_used = static_cast<int64_t>(peak_used_),
          .held = static_cast<int64_t>(used_ + waiting_bytes_)};
}

c10::DataPtr TensorMemory::allocate(size_t bytes) {
  void* const data = bytes >= kLargeBytes ? Take(RoundUp(bytes)) : c10::alloc_cpu(bytes);
  return {data, data, &Free, c10::Device(c10::kCPU)};
}

c10::DeleterFnPtr TensorMemory::raw_deleter() const { return &Free; }

void TensorMemory::copy_data(void* to, const void* from, size_t bytes) const {
  default_copy_data(to, from, bytes);
}

void TensorMemory::Free(void* data) { installed->GiveBack(data); }

void* TensorMemory::Take(size_t bytes) {
  const MutexLock lock(&mutex_);
  Block block = FindWaiting(bytes);
  if (block.data == nullptr) {
    MakeRoom(bytes);
    block = {Map(bytes), bytes};
  }
  in_use_[block.data] = block.bytes;
  used_ += block.bytes;
  peak_used_ = std::max(peak_used_, used_);
  return block.data;
}

void TensorMemory::GiveBack(void* data) {
  {
    const MutexLock lock(&mutex_);
    if (const auto found = in_use_.find(data); found != in_use_.end()) {
      waiting_.push_back({data, found->second});
      used_ -= found->second;
      waiting_bytes_ += found->second;
      in_use_.erase(found);
      return;
    }
  }
  c10::free_cpu(data);
}

TensorMemory::Block TensorMemory::FindWaiting(size_t bytes) {
  const size_t most = bytes + bytes / 4;
  auto best = waiting_.end();
  for (auto block = waiting_.begin(); block != waiting_.end(); ++block) {
    if (block->bytes < bytes || block->bytes > most) continue;
    // Of equal ones that which was used last, whose pages may still be in the cache.
    if (best == waiting_.end() || block->bytes <= best->bytes) best = block;
  }
  if (best == waiting_.end()) return {};
  const Block block = *best;
  waiting_.erase(best);
  waiting_bytes_ -= block.bytes;
  return block;
}

void TensorMemory::MakeRoom(size_t bytes) {
  const auto most =
      static_cast<size_t>((1 + kSlack) * static_cast<double>(std::max(peak_used_, used_ + bytes)));
  auto last = waiting_.begin();
  while (last != waiting_.end() && used_ + waiting_bytes_ + bytes > most) {
    munmap(last->data, last->bytes);
    waiting_bytes_ -= last->bytes;
    ++last;
  }
  waiting_.erase(waiting_.begin(), last);
}

}  // namespace pricer
