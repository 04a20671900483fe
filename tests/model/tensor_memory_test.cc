#include "model/tensor_memory.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>

#include <cstdint>
#include <random>
#include <thread>
#include <vector>

namespace pricer {
namespace {

// All of the process's tensors: the tests look at what they add.
class TensorMemoryTest : public ::testing::Test {
 protected:
  static at::Tensor Bytes(int64_t bytes) { return at::empty({bytes}, at::kByte); }

  TensorMemory& memory_ = TensorMemory::Install();
};

TEST_F(TensorMemoryTest, BlocksAreUsedAgainByTensorsOfAboutTheirSize) {
  at::Tensor tensor = Bytes(int64_t{10} << 20);
  const void* const block = tensor.data_ptr();
  const int64_t held = memory_.usage().held;
  tensor = at::Tensor();
  EXPECT_EQ(memory_.usage().held, held);
  tensor = Bytes((int64_t{10} << 20) - 4567);
  EXPECT_EQ(tensor.data_ptr(), block);
  // One that is much smaller gets a block of its own.
  tensor = at::Tensor();
  tensor = Bytes(int64_t{5} << 20);
  EXPECT_NE(tensor.data_ptr(), block);
}

TEST_F(TensorMemoryTest, WhatIsUsedIsCounted) {
  const TensorMemory::Usage before = memory_.usage();
  {
    const at::Tensor large = Bytes(int64_t{8} << 20);
    const at::Tensor small = Bytes(1000);
    EXPECT_EQ(memory_.usage().used - before.used, int64_t{8} << 20);
    EXPECT_GE(memory_.usage().held, memory_.usage().used);
  }
  EXPECT_EQ(memory_.usage().used, before.used);
}

TEST_F(TensorMemoryTest, DataIsAligned) {
  for (const int64_t bytes : {int64_t{1} << 18, int64_t{300001}, int64_t{9} << 20}) {
    EXPECT_EQ(reinterpret_cast<uintptr_t>(Bytes(bytes).data_ptr()) % 64, 0u) << bytes;
  }
}

TEST_F(TensorMemoryTest, TensorsOfEverOtherSizesDoNotMakeItGrow) {
  std::mt19937_64 random(5);
  std::uniform_int_distribution<int64_t> size(1 << 18, 12 << 20);
  std::vector<at::Tensor> tensors(20);
  for (int i = 0; i < 1000; ++i) {
    at::Tensor& tensor = tensors[random() % tensors.size()];
    tensor = at::Tensor();
    tensor = at::zeros({size(random)}, at::kByte);
    const TensorMemory::Usage usage = memory_.usage();
    ASSERT_LE(static_cast<double>(usage.held),
              (1 + TensorMemory::kSlack) * static_cast<double>(usage.peak_used) + 1);
  }
}

TEST_F(TensorMemoryTest, ThreadsShareIt) {
  const int64_t before = memory_.usage().used;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([t] {
      for (int64_t i = 0; i < 500; ++i) {
        const at::Tensor tensor = at::full({(1 << 18) + 4096 * (i % 7)}, t, at::kByte);
        EXPECT_EQ(tensor[i].item<int64_t>(), t);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(memory_.usage().used, before);
}

TEST_F(TensorMemoryTest, MoreThanTheSystemHasIsAnError) {
  EXPECT_THROW(Bytes(int64_t{1} << 50), c10::Error);
  EXPECT_EQ(Bytes(0).numel(), 0);
}

}  // namespace
}  // namespace pricer
