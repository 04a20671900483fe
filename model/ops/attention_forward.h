#pragma once

#include <ATen/ATen.h>

#include <cstdint>

#include "model/ops/matrix_product.h"
#include "model/ops/strided_rows.h"

namespace pricer {

// One sequence and the query heads that share one of its key heads; G of them lie side by side.
template <typename T>
struct AttentionQueries {
  int64_t queries = 0;
  int64_t keys = 0;
  // Query i sees the first keys - queries + i + 1 keys; else all.
  bool causal = true;
  StridedRows<const T> q;     // [queries, G D]
  StridedRows<const T> k, v;  // [keys, D]
  StridedRows<T> out;         // [queries, G D], overwritten
  // The log-sum-exp of query t's scaled scores and head g goes to [t * log_sum_exp_stride + g].
  float* log_sum_exp = nullptr;
  int64_t log_sum_exp_stride = 0;
};

// Attention on a CPU: out = softmax(q k^T / sqrt(D)) v, for a block of queries at a time. Products
// take their operands in the compute dtype, probabilities too, and sum in fp32. Computes one
// sequence after the other in memory that it keeps. One thread, inside of ProductScope.
template <typename T>
class AttentionForward {
 public:
  // For sequences of up to so many keys.
  AttentionForward(int64_t keys, int64_t head_dim);

  // Of heads [head_begin, head_end) of the G.
  void Compute(const AttentionQueries<T>& x, int64_t head_begin, int64_t head_end);

 private:
  void PackKeys(const AttentionQueries<T>& x);
  void ComputeBlock(const AttentionQueries<T>& x, int64_t head, int64_t begin, int64_t count);

  const int64_t head_dim_;
  const int64_t stride_;  // of scores and probabilities
  const float scale_;
  at::Tensor keys_;           // k^T in panels
  at::Tensor values_;         // v in panels
  at::Tensor scores_;         // [kAttentionRows, stride] fp32
  at::Tensor probabilities_;  // likewise
  at::Tensor queries_;        // [kAttentionRows, D]
  at::Tensor sum_;            // [kAttentionRows, D, rounded up] fp32
};

}  // namespace pricer
