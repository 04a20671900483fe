#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "model/model_config.h"

namespace pricer {

// y += scale * B (A x), arXiv 2106.09685.
struct LoraWeights {
  at::Tensor
      a;  // [R, in] fp32, where they only serve on a GPU bf16; undefined = this linear has none
  at::Tensor b;  // [out, R] as a
  double scale = 1.0;

  bool defined() const { return a.defined(); }
};

// Dropout on the input of every matrix A in one training step. The module that model/ops/dropout.h
// speaks of is layer * kProjectionCount + projection.
struct LoraDropout {
  double probability = 0;
  uint64_t seed = 0;
  int64_t step = 0;
  std::vector<int64_t> rows;  // [B]; each sequence's number in the epoch
};

// The low-rank weights of one adapter over a decoder, and its bins head where it has one. Tensors
// are shared by copies of the struct; the trainer's require gradients, the server's do not.
// Thread-compatible.
struct AdapterWeights {
  // [layer_count][kProjectionCount]
  std::vector<std::vector<LoraWeights>> layers;
  at::Tensor score;  // [bins, H] fp32; undefined = no bins head

  const LoraWeights& lora(int64_t layer, Projection projection) const {
    return layers[layer][static_cast<int>(projection)];
  }
  int64_t bytes() const;
};

// A copy on `device`, detached. Low-rank weights become `lora_dtype`; a bins head stays as it is.
AdapterWeights CopyTo(const AdapterWeights& weights, at::Device device,
                      at::ScalarType lora_dtype = at::kFloat);

}  // namespace pricer
