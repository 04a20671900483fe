#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "model/checkpoint.h"

// How much memory the weights of a base take, before anything is loaded. No torch.

namespace pricer {

// Where weights lie, and what of NF4 linears: on a GPU they can stay in NF4, decoded into two
// buffers by turns.
enum class WeightsPlace { kCpu, kGpuInNf4, kGpuDecoded };

// How the weights are loaded; see model/weights.h.
struct WeightsPlan {
  std::string weights = "nf4";  // or "bf16" or "fp32"
  int64_t element_bytes = 4;    // of the compute dtype, in which they stay resident
  int threads = 1;              // load layers side by side
  WeightsPlace place = WeightsPlace::kCpu;

  bool on_gpu() const { return place != WeightsPlace::kCpu; }
};

// The parts of the resident weights, in bytes.
struct ResidentWeights {
  int64_t linears = 0;  // as the products take them or in NF4, and their biases
  int64_t window = 0;   // the buffers of two decoded layers
  int64_t embedding = 0;
  int64_t head = 0;  // 0 where it is the embedding
  int64_t norms = 0;
  int64_t rotary = 0;

  int64_t total() const { return linears + window + embedding + head + norms + rotary; }
};
ResidentWeights PredictWeights(const Checkpoint& checkpoint, const WeightsPlan& plan);

// The most bytes while the weights are loaded: of tensors, and of NF4's codes as well. The pages of
// the mapped files are not counted, since the system takes them back.
struct LoadMemory {
  int64_t tensor_peak_bytes = 0;
  int64_t peak_bytes = 0;
};
LoadMemory PredictLoadMemory(const Checkpoint& checkpoint, const WeightsPlan& plan);

// Whether the linear `module` is in NF4 once it is loaded so.
bool LoadsAsNf4(const Checkpoint& checkpoint, const std::string& module, const WeightsPlan& plan);

}  // namespace pricer
