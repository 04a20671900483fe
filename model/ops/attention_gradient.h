#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <memory>

#include "model/ops/attention_blocks.h"
#include "model/ops/strided_rows.h"

// The gradients of causal attention on a CPU, for the query heads that share one key head, by the
// products that define them: with S = Q K^T scale, P = exp(S - log_sum_exp) and dP = dO V^T,
//   dS = P (dP - rowsum(dO O)),  dQ = scale dS K,  dK = scale dS^T Q,  dV = P^T dO.
// All are formed transposed, [keys, queries], so that most operands lie as the products want them,
// and for a block of queries at a time, so that they stay in the cache. Products take their
// operands in the compute dtype and sum in fp32.

namespace pricer {

// One sequence: its queries are those of the last of its tokens. G query heads lie side by side.
template <typename T>
struct AttentionHeads {
  int64_t queries = 0;
  int64_t keys = 0;
  StridedRows<const T> q, out, grad_out;  // [queries, G D]
  StridedRows<const T> k, v;              // [keys, D]
  // Of query t and head g at [t * log_sum_exp_stride + g].
  const float* log_sum_exp = nullptr;
  int64_t log_sum_exp_stride = 0;
  StridedRows<T> grad_q;          // [queries, G D], overwritten
  StridedRows<T> grad_k, grad_v;  // [keys, D], overwritten
};

// Computes gradients, one after the other, in memory that it keeps. One thread at a time.
template <typename T>
class AttentionGradient {
 public:
  virtual ~AttentionGradient() = default;
  virtual void Compute(const AttentionHeads<T>& heads) = 0;
};

// `T` is float or at::BFloat16. For what `sizes` includes.
template <typename T>
std::unique_ptr<AttentionGradient<T>> MakeAttentionGradient(const AttentionGradientSizes& sizes,
                                                            int64_t group, int64_t head_dim);

}  // namespace pricer
