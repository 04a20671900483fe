#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "model/packed_batch.h"
#include "model/price_head.h"
#include "trainer/dataset.h"

namespace pricer {

// What one forward and backward pass works on: each of the batch's answers has a target.
struct MicroBatch {
  PackedBatch batch;
  // Of a bins head [A, bins] fp32: the distribution to train towards, rows sum to 1. Of the token
  // head [A] int64: the token that follows.
  at::Tensor targets;
  std::vector<int64_t> rows;  // [B]; each sequence's number in the training data

  int64_t target_count() const { return targets.size(0); }
};

// Packs the prompts of the examples at `indices`, all with adapter 0, for a bins head.
MicroBatch MakeBinsMicroBatch(absl::Span<const Example> examples, absl::Span<const int64_t> indices,
                              const BinsSpec& bins);

// The same with the completions, for the token head: the loss is on their tokens alone. The last
// token of a completion is only a target. REQUIRES: every example has a completion and a prompt.
MicroBatch MakeTokenMicroBatch(absl::Span<const Example> examples,
                               absl::Span<const int64_t> indices);

// The micro-batch as up to `parts` of about equally many sequences, in their order. They share its
// memory.
std::vector<MicroBatch> Split(const MicroBatch& micro_batch, int64_t parts);

}  // namespace pricer
