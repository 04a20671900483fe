#include "model/processor.h"

#include <gmock/gmock.h>

#include <fstream>
#include <iterator>
#include <string>

namespace pricer {
namespace {

using ::testing::HasSubstr;

TEST(ProcessorTest, WhatIsUnsuitedIsNamedWithWhatToDo) {
  EXPECT_THAT(ProcessorWarning({.avx2 = false}, /*bf16=*/false), HasSubstr("no AVX2"));
  EXPECT_THAT(ProcessorWarning({.avx2 = true}, /*bf16=*/true), HasSubstr("--dtype fp32"));
  EXPECT_EQ(ProcessorWarning({.avx2 = true}, /*bf16=*/false), "");
  EXPECT_EQ(ProcessorWarning({.avx2 = true, .multiplies_bf16 = true}, /*bf16=*/true), "");
}

TEST(ProcessorTest, ThisOneHasWhatTheKernelSays) {
  std::ifstream file("/proc/cpuinfo");
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  const auto has = [&text](const std::string& flag) {
    return text.find(" " + flag + " ") != std::string::npos;
  };
  const ProcessorFeatures processor = ThisProcessor();
  EXPECT_EQ(processor.avx2, has("avx2") && has("fma"));
  EXPECT_EQ(processor.multiplies_bf16, has("avx512_bf16") || has("amx_bf16"));
}

}  // namespace
}  // namespace pricer
