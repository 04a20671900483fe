#include "trainer/memory_usage.h"

#include <gmock/gmock.h>
#include <sys/mman.h>

#include <cstring>

namespace pricer {
namespace {

using ::testing::Eq;
using ::testing::Optional;

TEST(MemoryUsageTest, ReadsWhatTheKernelWrites) {
  const MemoryUsage usage = ParseMemoryUsage(
      "Name:\tpricer-trainer\nVmPeak:\t  999999 kB\nVmSize:\t  888888 kB\nVmHWM:\t  524288 kB\n"
      "VmRSS:\t    1536 kB\nRssAnon:\t     100 kB\nThreads:\t3\n");
  EXPECT_THAT(usage.resident_bytes, Optional(1536 * 1024));
  EXPECT_THAT(usage.peak_resident_bytes, Optional(512 << 20));
}

TEST(MemoryUsageTest, WhatIsNotThereIsAbsent) {
  // A kernel thread has none of them.
  EXPECT_THAT(ParseMemoryUsage("Name:\tkthreadd\nThreads:\t1\n").resident_bytes, Eq(std::nullopt));
  EXPECT_THAT(ParseMemoryUsage("").peak_resident_bytes, Eq(std::nullopt));
  const MemoryUsage half = ParseMemoryUsage("VmRSS:\t 7 kB\n");
  EXPECT_THAT(half.resident_bytes, Optional(7 * 1024));
  EXPECT_THAT(half.peak_resident_bytes, Eq(std::nullopt));
}

TEST(MemoryUsageTest, WhatIsNoNumberOfKilobytesIsAbsent) {
  for (const char* line :
       {"VmRSS:\t", "VmRSS:\t kB", "VmRSS:\t12", "VmRSS:\t12 MB", "VmRSS:\t-1 kB",
        "VmRSS:\tmany kB", "VmRSS:\t9223372036854775807 kB", "VmRSS:\t12 kB kB"}) {
    EXPECT_THAT(ParseMemoryUsage(line).resident_bytes, Eq(std::nullopt)) << line;
  }
}

TEST(MemoryUsageTest, ThePeakStaysWhenMemoryIsGivenBack) {
  constexpr int64_t kBytes = 64 << 20;
  const MemoryUsage before = ReadMemoryUsage();
  if (!before.resident_bytes.has_value()) GTEST_SKIP() << "this system has no VmRSS";
  EXPECT_GT(*before.resident_bytes, 100 << 10);
  EXPECT_GE(*before.peak_resident_bytes, *before.resident_bytes);
  // From the kernel and back, past allocators that keep what they get.
  void* block = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(block, MAP_FAILED);
  std::memset(block, 1, kBytes);
  const MemoryUsage full = ReadMemoryUsage();
  ASSERT_EQ(munmap(block, kBytes), 0);
  // The kernel counts pages for each thread and may lag by some of them.
  EXPECT_GT(*full.resident_bytes, *before.resident_bytes + kBytes * 9 / 10);
  const MemoryUsage after = ReadMemoryUsage();
  EXPECT_LT(*after.resident_bytes, *before.resident_bytes + kBytes / 2);
  EXPECT_GT(*after.peak_resident_bytes, *before.resident_bytes + kBytes * 9 / 10);
}

}  // namespace
}  // namespace pricer
