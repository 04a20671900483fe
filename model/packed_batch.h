#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace pricer {

// B sequences laid end to end: T tokens in all. Cost is tokens, never rows x longest.
struct PackedBatch {
  at::Tensor ids;                // [T] int64
  at::Tensor positions;          // [T] int64, from 0 in every sequence
  std::vector<int64_t> offsets;  // [B + 1]; sequence b is tokens offsets[b] to offsets[b + 1] - 1
  // [B + 1]; the last tokens of every sequence whose final states are wanted: those of sequence b
  // are answers answer_offsets[b] to answer_offsets[b + 1] - 1.
  std::vector<int64_t> answer_offsets;
  std::vector<int32_t> adapter;  // [B]; index into the adapters of the call, ascending; -1 = none

  int64_t sequence_count() const { return static_cast<int64_t>(offsets.size()) - 1; }
  int64_t token_count() const { return offsets.back(); }
  int64_t answer_count() const { return answer_offsets.back(); }
};

// One sequence to pack. The ids must outlive the call alone.
struct PackedSequence {
  absl::Span<const int32_t> ids;
  int32_t adapter = -1;
  // How many of its last tokens are asked for their final state.
  int64_t answers = 1;
};

// Packs in the order given. REQUIRES: at least one sequence, none empty, ordered by adapter, 1 <=
// answers <= tokens.
PackedBatch Pack(absl::Span<const PackedSequence> sequences);

// Sequences [begin, end) of a batch. REQUIRES: begin < end.
PackedBatch Slice(const PackedBatch& batch, int64_t begin, int64_t end);

}  // namespace pricer
