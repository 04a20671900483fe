#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "model/checkpoint.h"

namespace pricer {

// Adapters for benchmarks: a few are written, all others are hard links to them, so that they cost
// little disk.

struct BenchAdapterOptions {
  // What the base's weights are rounded to, and what is computed in.
  std::string weights = "nf4";
  std::string dtype = "fp32";
  std::vector<std::string> targets = {"all-linear"};
  int64_t rank = 8;
};

inline constexpr int kWrittenBenchAdapters = 4;

// Writes kWrittenBenchAdapters random ones with a bins head into `directory`, which must be there.
absl::Status WriteBenchAdapters(const BenchAdapterOptions& options, const Checkpoint& base,
                                const std::string& directory);

// Publishes the n-th of those written in `from`, from 0 and modulo their number, as
// `root`/`name`/`version`, its marker last.
void LinkBenchAdapter(const std::string& from, int64_t n, const std::string& root,
                      const std::string& name, int64_t version);

// "adapter-7".
std::string BenchAdapterName(int64_t n);

}  // namespace pricer
