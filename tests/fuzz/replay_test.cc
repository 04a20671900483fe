// Runs a fuzz target on its seeds and on changes of them, the same ones each time: what libFuzzer
// does for hours, for a second.

#include <gtest/gtest.h>

#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "base/file.h"
#include "tests/fuzz/fuzzer.h"
#include "tests/testing/status_matchers.h"

namespace pricer {
namespace {

constexpr int kChangesOfASeed = 400;

std::vector<std::string> Seeds() {
  std::vector<std::string> seeds;
  for (const auto& entry : std::filesystem::directory_iterator(PRICER_FUZZ_SEEDS)) {
    absl::StatusOr<std::string> seed = ReadFile(entry.path().string());
    EXPECT_OK(seed);
    if (seed.ok()) seeds.push_back(*std::move(seed));
  }
  return seeds;
}

void RunTarget(const std::string& input) {
  EXPECT_EQ(LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(input.data()), input.size()),
            0);
}

// One byte, a piece that is cut out or doubled, or the end.
void Change(std::mt19937* random, std::string* input) {
  if (input->empty()) return;
  const size_t at = (*random)() % input->size();
  const size_t length = 1 + (*random)() % 16;
  switch ((*random)() % 5) {
    case 0:
      (*input)[at] = static_cast<char>((*random)());
      break;
    case 1:
      (*input)[at] = static_cast<char>((*input)[at] ^ (1 << ((*random)() % 8)));
      break;
    case 2:
      input->erase(at, length);
      break;
    case 3:
      input->insert(at, input->substr(at, length));
      break;
    default:
      input->resize(at);
  }
}

TEST(FuzzReplayTest, SeedsAndChangesOfThemReturn) {
  const std::vector<std::string> seeds = Seeds();
  ASSERT_FALSE(seeds.empty());
  std::mt19937 random(1);
  for (const std::string& seed : seeds) {
    RunTarget(seed);
    for (int i = 0; i < kChangesOfASeed; ++i) {
      std::string input = seed;
      for (int changes = 1 + i % 4; changes > 0; --changes) Change(&random, &input);
      RunTarget(input);
    }
  }
}

}  // namespace
}  // namespace pricer
