#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "model/packed_batch.h"
#include "model/price_head.h"
#include "trainer/dataset.h"

namespace pricer {

// What one forward and backward pass works on.
struct MicroBatch {
  PackedBatch batch;
  at::Tensor targets;  // [B, bins] fp32: the distribution to train towards, rows sum to 1
};

// Packs the examples at `indices`, all with adapter 0.
MicroBatch MakeMicroBatch(absl::Span<const Example> examples, absl::Span<const int64_t> indices,
                          const BinsSpec& bins);

// Sum over rows of the cross-entropy of `logits` [B, bins] against `targets` [B, bins]: a scalar. A
// sum, because the mean is over the rows of the whole step and not of a micro-batch.
at::Tensor CrossEntropySum(const at::Tensor& logits, const at::Tensor& targets);

}  // namespace pricer
