#pragma once

#include <ATen/ATen.h>

#include <cstdint>

// libtorch's attention over sequences of different lengths that lie end to end: FlashAttention-2,
// arXiv 2307.08691. bf16, head dimensions that are multiples of 8 up to 256; query heads are a
// multiple of key heads.

namespace pricer::cuda {

struct FlashSequences {
  at::Tensor query_offsets;  // [B + 1] int32, on the GPU
  at::Tensor key_offsets;    // [B + 1] int32, on the GPU
  int64_t max_queries = 0;
  int64_t max_keys = 0;
  // The last query sees all keys, each one before it one key less; else all see all.
  bool causal = true;
};

struct FlashInputs {
  at::Tensor q;  // [queries, N, D], unit stride in a head
  at::Tensor k;  // [keys, K, D], likewise
  at::Tensor v;  // [keys, K, D], likewise
  double scale = 1;
};

struct FlashOutput {
  at::Tensor out;          // [queries, N, D]
  at::Tensor log_sum_exp;  // [N, queries] fp32
};
FlashOutput FlashForward(const FlashInputs& x, const FlashSequences& sequences);

struct FlashGradients {
  at::Tensor q, k, v;  // of the inputs' shapes
};
FlashGradients FlashBackward(const at::Tensor& grad_out, const FlashInputs& x,
                             const FlashOutput& made, const FlashSequences& sequences);

}  // namespace pricer::cuda
