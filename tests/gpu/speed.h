#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/lora.h"
#include "model/model_config.h"
#include "model/network.h"

// What the parts of the benchmark share. Each part fills a JSON object of its figures.

namespace pricer::gpu {

struct Bench {
  at::Device device = at::kCPU;
  bool small = false;        // tiny shapes, to try the program itself
  double part_seconds = 60;  // about as long as one part may measure
};

// Seconds of one call, the median of as many as fit into `seconds`, three at least; after one that
// is not counted. Waits for the device before and behind each.
absl::StatusOr<double> MedianSeconds(const Bench& bench, double seconds,
                                     const std::function<absl::Status()>& call);

// FLOP/s of a large bf16 product of random matrices: what shares of the matmul rate are of.
absl::StatusOr<double> MatmulRate(const Bench& bench);

// Llama 3.1 8B, or a tiny one.
ModelConfig BenchModel(const Bench& bench);

// Random sequences of so many tokens each.
std::vector<std::vector<int32_t>> RandomPrompts(const ModelConfig& config, int64_t count,
                                                int64_t tokens);

absl::Status MeasureMatmul(const Bench& bench, nlohmann::json* figures);
absl::Status MeasureKernels(const Bench& bench, nlohmann::json* figures);
absl::Status MeasureTuning(const Bench& bench, nlohmann::json* figures);
absl::Status MeasureServing(const Bench& bench, nlohmann::json* figures);

}  // namespace pricer::gpu
