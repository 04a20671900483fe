#include "tests/testing/cuda/grid.h"

#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <array>
#include <vector>

#include "model/cuda/launch.h"

// What stands in for a GPU: that it runs every thread, and finds what tests rely on it to find.

namespace pricer {
namespace {

using emulated::SetThreadOrder;
using emulated::ThreadOrder;

__global__ void number_threads(int* out) {
  const unsigned thread = threadIdx.x + blockDim.x * threadIdx.y;
  const unsigned block = blockIdx.x + gridDim.x * blockIdx.y;
  ++out[block * blockDim.x * blockDim.y + thread];
}

TEST(GridTest, RunsEveryThreadOfEveryBlockOnce) {
  std::vector<int> out(3 * 2 * 32 * 4, 0);
  ASSERT_EQ(cuda::Launch(number_threads, dim3(3, 2), dim3(32, 4), nullptr, out.data()),
            cudaSuccess);
  for (int count : out) EXPECT_EQ(count, 1);
}

TEST(GridTest, LaunchesNothingWithoutBlocksAndRefusesTooManyThreads) {
  EXPECT_EQ(cuda::Launch(number_threads, dim3(0), dim3(32), nullptr, static_cast<int*>(nullptr)),
            cudaSuccess);
  EXPECT_EQ(cuda::Launch(number_threads, dim3(1), dim3(2048), nullptr, static_cast<int*>(nullptr)),
            cudaErrorInvalidConfiguration);
}

__global__ void exchange(int* out) {
  out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, static_cast<int>(threadIdx.x), 5);
}

TEST(GridTest, ShufflesWithinAWarp) {
  for (ThreadOrder order : {ThreadOrder::kAscending, ThreadOrder::kDescending}) {
    SetThreadOrder(order);
    std::array<int, 64> out = {};
    ASSERT_EQ(cuda::Launch(exchange, dim3(1), dim3(64), nullptr, out.data()), cudaSuccess);
    for (int i = 0; i < 64; ++i) EXPECT_EQ(out[i], i ^ 5);
  }
}

// Each thread reads what a thread of the other warp writes.
template <bool kHasBarrier>
__global__ void swap_warps(int* out) {
  __shared__ int values[64];
  values[threadIdx.x] = 1000 + static_cast<int>(threadIdx.x);
  if constexpr (kHasBarrier) __syncthreads();
  out[threadIdx.x] = values[threadIdx.x ^ 32];
  __syncthreads();
  values[threadIdx.x] = 0;
}

template <bool kHasBarrier>
bool SwapsInBothOrders() {
  bool all = true;
  for (ThreadOrder order : {ThreadOrder::kAscending, ThreadOrder::kDescending}) {
    SetThreadOrder(order);
    std::array<int, 64> out = {};
    EXPECT_EQ(cuda::Launch(swap_warps<kHasBarrier>, dim3(1), dim3(64), nullptr, out.data()),
              cudaSuccess);
    for (int i = 0; i < 64; ++i) all = all && out[i] == 1000 + (i ^ 32);
  }
  return all;
}

TEST(GridTest, AMissingBarrierShows) {
  EXPECT_TRUE(SwapsInBothOrders<true>());
  EXPECT_FALSE(SwapsInBothOrders<false>());
}

__global__ void half_of_a_barrier() {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __shfl_xor_sync(0xffffffffu, threadIdx.x < 40 ? 1 : 0, 1);
    if (threadIdx.x < 40) __shfl_xor_sync(0xffffffffu, 1, 1);
    __syncthreads();
  }
}

TEST(GridDeathTest, ABarrierThatSomeThreadsDoNotReachEndsTheProgram) {
  EXPECT_DEATH(cuda::Launch(half_of_a_barrier, dim3(1), dim3(64), nullptr), "emulated kernel");
}

}  // namespace
}  // namespace pricer
