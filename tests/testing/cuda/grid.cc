#include "tests/testing/cuda/grid.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <vector>

#include "tests/testing/cuda/mma.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#else
// The address sanitizer alone needs to be told of stacks.
static void __sanitizer_start_switch_fiber(void**, const void*, size_t) {}
static void __sanitizer_finish_switch_fiber(void*, const void**, size_t*) {}
#endif

// Leaves its stack pointer in *from and goes on where `to` was left: what a call must keep is on
// the stacks. swapcontext() does the same by way of the kernel, which is a hundred times slower.
extern "C" void PricerSwitchStack(void** from, void* to);
asm(R"(
.text
.globl PricerSwitchStack
.type PricerSwitchStack, @function
PricerSwitchStack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size PricerSwitchStack, .-PricerSwitchStack
.section .note.GNU-stack, "", @progbits
.text
)");

namespace pricer::emulated {
namespace {

constexpr size_t kStackBytes = size_t{256} << 10;
constexpr int kWarpSize = 32;

[[noreturn]] void Fail(const char* what) {
  std::fprintf(stderr, "emulated kernel: %s\n", what);
  std::abort();
}

enum class State { kRunnable, kAtWarpBarrier, kAtBlockBarrier, kDone };

void RunFiber();

// A thread of a block, one block after the other.
class Fiber {
 public:
  explicit Fiber(int index)
      : index(index),
        stack_(mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                    0)) {
    if (stack_ == MAP_FAILED) Fail("no memory for a thread's stack");
    // What PricerSwitchStack pops: six registers and where to go; there the stack is as after a
    // call.
    void** top = reinterpret_cast<void**>(static_cast<char*>(stack_) + kStackBytes) - 8;
    top[6] = reinterpret_cast<void*>(&RunFiber);
    stack_pointer = top;
  }
  ~Fiber() { munmap(stack_, kStackBytes); }
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  const void* stack() const { return stack_; }

  const int index;
  dim3 thread;
  State state = State::kDone;
  uint64_t exchanged = 0;
  void* stack_pointer = nullptr;  // where it was left
  void* fake_stack = nullptr;     // the address sanitizer's

 private:
  void* const stack_;
};

// All there is of the grid that runs.
struct Grid {
  std::vector<std::unique_ptr<Fiber>> fibers;
  int threads = 0;  // of a block
  Fiber* current = nullptr;
  void* scheduler_stack_pointer = nullptr;
  const void* scheduler_stack = nullptr;
  size_t scheduler_stack_bytes = 0;
  ThreadOrder order = ThreadOrder::kAscending;
  const std::function<void()>* body = nullptr;
};

Grid& TheGrid() {
  static Grid grid;
  return grid;
}

// From a fiber back to the scheduler, until it resumes the fiber.
void Wait(State state) {
  Grid& grid = TheGrid();
  Fiber& self = *grid.current;
  self.state = state;
  __sanitizer_start_switch_fiber(&self.fake_stack, grid.scheduler_stack,
                                 grid.scheduler_stack_bytes);
  PricerSwitchStack(&self.stack_pointer, grid.scheduler_stack_pointer);
  __sanitizer_finish_switch_fiber(self.fake_stack, &grid.scheduler_stack,
                                  &grid.scheduler_stack_bytes);
}

void RunFiber() {
  Grid& grid = TheGrid();
  __sanitizer_finish_switch_fiber(nullptr, &grid.scheduler_stack, &grid.scheduler_stack_bytes);
  for (;;) {
    (*grid.body)();
    Wait(State::kDone);
  }
}

void Resume(Grid& grid, Fiber& fiber) {
  grid.current = &fiber;
  threadIdx = fiber.thread;
  void* fake_stack = nullptr;
  __sanitizer_start_switch_fiber(&fake_stack, fiber.stack(), kStackBytes);
  PricerSwitchStack(&grid.scheduler_stack_pointer, fiber.stack_pointer);
  __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
}

// Lets [begin, end) go where all that are left wait at the same barrier.
bool Release(Grid& grid, int begin, int end, State barrier) {
  bool any = false;
  for (int i = begin; i < end; ++i) {
    const State state = grid.fibers[i]->state;
    if (state == State::kDone) continue;
    if (state != barrier) return false;
    any = true;
  }
  for (int i = begin; any && i < end; ++i) {
    if (grid.fibers[i]->state == barrier) grid.fibers[i]->state = State::kRunnable;
  }
  return any;
}

// Runs the threads [begin, end) of a warp until all wait at a barrier of the block or have
// returned.
void RunWarp(Grid& grid, int begin, int end) {
  do {
    for (int i = 0; i < end - begin; ++i) {
      Fiber& fiber = *grid.fibers[grid.order == ThreadOrder::kAscending ? begin + i : end - 1 - i];
      if (fiber.state == State::kRunnable) Resume(grid, fiber);
    }
  } while (Release(grid, begin, end, State::kAtWarpBarrier));
}

bool AllDone(const Grid& grid) {
  return std::all_of(grid.fibers.begin(), grid.fibers.begin() + grid.threads,
                     [](const auto& fiber) { return fiber->state == State::kDone; });
}

// One warp runs as far ahead of the others as barriers let it.
void RunBlock(Grid& grid) {
  for (int i = 0; i < grid.threads; ++i) grid.fibers[i]->state = State::kRunnable;
  const int warps = (grid.threads + kWarpSize - 1) / kWarpSize;
  do {
    for (int i = 0; i < warps; ++i) {
      const int warp = grid.order == ThreadOrder::kAscending ? i : warps - 1 - i;
      RunWarp(grid, warp * kWarpSize, std::min((warp + 1) * kWarpSize, grid.threads));
    }
  } while (Release(grid, 0, grid.threads, State::kAtBlockBarrier));
  if (!AllDone(grid)) Fail("some threads wait at a barrier that others do not reach");
}

}  // namespace

void SetThreadOrder(ThreadOrder order) { TheGrid().order = order; }

void RunGrid(dim3 blocks, dim3 threads, const std::function<void()>& body) {
  // Threads of the host may launch side by side.
  static std::mutex one_grid;
  const std::lock_guard<std::mutex> lock(one_grid);
  Grid& grid = TheGrid();
  grid.threads = static_cast<int>(threads.x * threads.y * threads.z);
  for (int i = static_cast<int>(grid.fibers.size()); i < grid.threads; ++i) {
    grid.fibers.push_back(std::make_unique<Fiber>(i));
  }
  for (int i = 0; i < grid.threads; ++i) {
    const auto t = static_cast<unsigned>(i);
    grid.fibers[i]->thread =
        dim3(t % threads.x, t / threads.x % threads.y, t / threads.x / threads.y);
  }
  grid.body = &body;
  gridDim = blocks;
  blockDim = threads;
  for (unsigned z = 0; z < blocks.z; ++z) {
    for (unsigned y = 0; y < blocks.y; ++y) {
      for (unsigned x = 0; x < blocks.x; ++x) {
        blockIdx = dim3(x, y, z);
        RunBlock(grid);
      }
    }
  }
}

void SyncBlock() { Wait(State::kAtBlockBarrier); }

void SyncWarp() { Wait(State::kAtWarpBarrier); }

uint64_t ExchangeXor(unsigned mask, uint64_t value, int lane_mask) {
  if (mask != 0xffffffffu) Fail("a shuffle among part of a warp");
  Grid& grid = TheGrid();
  Fiber* const self = grid.current;
  self->exchanged = value;
  SyncWarp();
  const int other = (self->index & ~(kWarpSize - 1)) | ((self->index % kWarpSize) ^ lane_mask);
  if (other >= grid.threads || grid.fibers[other]->state == State::kDone) {
    Fail("a shuffle with a thread that has returned");
  }
  const uint64_t received = grid.fibers[other]->exchanged;
  SyncWarp();
  return received;
}

}  // namespace pricer::emulated

namespace nvcuda::wmma::internal {

// What the hardware asks of addresses: 32 bytes where a matrix starts, 16 from row to row.
void CheckAddress(const void* address, size_t row_bytes) {
  if (reinterpret_cast<uintptr_t>(address) % 32 != 0 || row_bytes % 16 != 0) {
    pricer::emulated::Fail("a matrix in shared memory that is not aligned");
  }
}

}  // namespace nvcuda::wmma::internal
