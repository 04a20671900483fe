#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/price_head.h"
#include "trainer/dataset.h"

// The work of a comparison: prompts, tokenized once, and what to train towards, in files that both
// sides read.

namespace pricer {

struct BenchItemsOptions {
  std::string base;  // whose tokenizer is used
  // JSON lines of items; empty = a synthetic catalogue.
  std::string data;
  int64_t items = 256;
  uint64_t seed = 1;
  std::string output;  // made if it is not there
};

// Writes items.jsonl, one {"ids", "price"} a line; bins.json, the BinsSpec of all prices;
// targets.f32, [items][bins] little-endian fp32. FailedPrecondition where `data` has fewer items.
absl::Status WriteBenchItems(const BenchItemsOptions& options);

struct BenchItems {
  std::vector<Example> examples;
  BinsSpec bins;
};

// DataLoss names the file and line that is not as WriteBenchItems writes it.
absl::StatusOr<BenchItems> ReadBenchItems(const std::string& directory);

}  // namespace pricer
