#pragma once

#include <cstdint>
#include <functional>

#include "tests/testing/cuda/cuda_runtime_api.h"

// Runs the threads of a grid on one thread of the host, one grid at a time; see README.md.

namespace pricer::emulated {

// Where the running thread stands, under CUDA's names.
inline dim3 threadIdx, blockIdx, blockDim, gridDim;

// In which order the threads of a warp, and the warps of a block, run between two barriers.
enum class ThreadOrder { kAscending, kDescending };
void SetThreadOrder(ThreadOrder order);

// Runs body() as every thread of every block. Ends the program, saying why, where some threads wait
// at a barrier that others never reach.
void RunGrid(dim3 blocks, dim3 threads, const std::function<void()>& body);

// Called by all threads of a block, of a warp, that have not returned yet.
void SyncBlock();
void SyncWarp();

// The value that lane (own ^ lane_mask) gave. REQUIRES: `mask` names the whole warp.
uint64_t ExchangeXor(unsigned mask, uint64_t value, int lane_mask);

}  // namespace pricer::emulated
