#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "model/ops/dropout_bits.h"
#include "model/ops/lora_blocks.h"
#include "model/ops/row_blocks.h"
#include "model/ops/rows.h"

// What LoraForward and LoraBackward share.

namespace pricer {

// A mask's bits of `rows` rows from `row` on and of `channels` from `channel` on, a multiple of 32.
inline DropoutBlock MaskBlock(const at::Tensor& mask, int64_t row, int64_t rows, int64_t channel,
                              int64_t channels) {
  const auto* const bits = reinterpret_cast<const uint32_t*>(mask.const_data_ptr<int32_t>());
  const int64_t stride = mask.size(1);
  return {bits + row * stride + channel / 32, stride, rows, channels};
}

// Elements as KeepElements takes them.
inline const uint32_t* AsWords(const float* row) { return reinterpret_cast<const uint32_t*>(row); }
inline uint32_t* AsWords(float* row) { return reinterpret_cast<uint32_t*>(row); }
inline const uint16_t* AsWords(const at::BFloat16* row) {
  return reinterpret_cast<const uint16_t*>(row);
}
inline uint16_t* AsWords(at::BFloat16* row) { return reinterpret_cast<uint16_t*>(row); }

// The A of a segment's parts one below the other, each with rows of zeros up to its padded rank:
// [ranks, in].
at::Tensor StackA(const PlannedSegment& segment, int64_t in, at::ScalarType dtype);

struct Block {
  int64_t begin = 0;
  int64_t rows = 0;
  int64_t segment = -1;  // -1: without LoRA
};

// Computes the outputs of one block of rows, or a share of their panels.
struct BlockTask {
  Block block;
  int64_t share = 0;
  int64_t shares = 1;

  bool Has(int64_t panel) const { return panel % shares == share; }
};

// Tasks for all rows, each of one segment alone. Blocks are shared where there are few, and the
// last ones, so that all threads end at about the same time.
std::vector<BlockTask> CutTasks(const LoraPlan& plan, int64_t rows, int64_t panels);

template <typename T>
struct Scratch {
  std::vector<T> left, slice, kept, packed;
  std::vector<float> wide_states;
  std::vector<T> states;  // [kBlockRows, ranks]
  alignas(64) float sum[kBlockRows * kPanelColumns];
  alignas(64) float part_sum[kBlockRows * kPanelColumns];
};

// Stays with the thread, since new memory costs more than what is done in it. Not in its own
// storage, which lies on the stack of every thread of the process.
template <typename T>
Scratch<T>& ThreadScratch() {
  thread_local const std::unique_ptr<Scratch<T>> scratch = std::make_unique<Scratch<T>>();
  return *scratch;
}

// sum [rows, all columns] = left times right.
template <typename T>
void MultiplyAll(const LeftRows<T>& left, const PackedMatrix& right, float* sum, int64_t stride) {
  for (int64_t p = 0; p < right.panels(); ++p) {
    MultiplyPanel(left.data, left.stride, left.rows, left.k, right.panel<T>(p),
                  right.panel_width(p), sum + p * kPanelColumns, stride, /*add=*/false);
  }
}

// Rounds the states of `count` rows, times each part's scale, and writes them transposed from
// column `column` on of `transposed`, if that is not null.
template <typename T>
void RoundStates(const PlannedSegment& segment, int64_t count, Scratch<T>& scratch, T* transposed,
                 int64_t columns, int64_t column) {
  for (int64_t t = 0; t < count; ++t) {
    for (const PlannedPart& part : segment.parts) {
      const int64_t at = t * segment.ranks + part.rank_begin;
      row::Scale(&scratch.wide_states[at], static_cast<float>(part.scale),
                 AsRow(&scratch.states[at]), part.padded_rank);
    }
  }
  if (transposed == nullptr) return;
  for (int64_t r = 0; r < segment.ranks; ++r) {
    T* const out = transposed + r * columns + column;
    for (int64_t t = 0; t < count; ++t) out[t] = scratch.states[t * segment.ranks + r];
  }
}

template <typename T>
void ResizeStates(const PlannedSegment& segment, Scratch<T>& scratch) {
  scratch.wide_states.resize(kBlockRows * segment.ranks);
  scratch.states.assign(kBlockRows * segment.ranks, T(0));
}

// Low-rank states of every segment, zeros.
std::vector<at::Tensor> ZeroStates(const LoraPlan& plan, at::ScalarType dtype);

}  // namespace pricer
