#include "model/ops/attention_forward.h"

#include <algorithm>
#include <cmath>

#include "model/ops/attention_blocks.h"
#include "model/ops/row_kernels.h"
#include "model/ops/rows.h"

namespace pricer {
template <typename T>
AttentionForward<T>::AttentionForward(int64_t keys, int64_t head_dim)
    : head_dim_(head_dim),
      stride_(AttentionStride(keys)),
      scale_(1.0f / std::sqrt(static_cast<float>(head_dim))) {
  constexpr at::ScalarType kDtype = c10::CppTypeToScalarType<T>::value;
  const int64_t width = RoundUp(kProductTile, head_dim);
  const int64_t columns = RoundUp(kDepthTile, keys);
  keys_ = at::empty({RoundUp(kRowsTogether<T>, head_dim) * columns}, kDtype);
  values_ = at::empty({columns * width}, kDtype);
  scores_ = at::empty({kAttentionRows * AttentionStride(keys)}, at::kFloat);
  probabilities_ = at::empty({kAttentionRows * AttentionStride(keys)}, kDtype);
  queries_ = at::empty({kAttentionRows * RoundUp(kRowsTogether<T>, head_dim)}, kDtype);
  sum_ = at::empty({kAttentionRows * width}, at::kFloat);
}

template <typename T>
void AttentionForward<T>::Compute(const AttentionQueries<T>& x, int64_t head_begin,
                                  int64_t head_end) {
  PackKeys(x);
  for (int64_t begin = 0; begin < x.queries; begin += kAttentionRows) {
    const int64_t count = std::min(kAttentionRows, x.queries - begin);
    for (int64_t head = head_begin; head < head_end; ++head) ComputeBlock(x, head, begin, count);
  }
}

template <typename T>
void AttentionForward<T>::PackKeys(const AttentionQueries<T>& x) {
  const int64_t packed_dim = RoundUp(kRowsTogether<T>, head_dim_);
  for (int64_t key = 0; key < x.keys; key += kPanelColumns) {
    const int64_t columns = std::min(kPanelColumns, x.keys - key);
    PackTransposedPanel(x.k[key], x.k.stride, head_dim_, columns, RoundUp(kDepthTile, columns),
                        keys_.mutable_data_ptr<T>() + key * packed_dim);
  }
  const int64_t packed_keys = RoundUp(kDepthTile, x.keys);
  for (int64_t d = 0; d < head_dim_; d += kPanelColumns) {
    const int64_t columns = std::min(kPanelColumns, head_dim_ - d);
    PackPanel(x.v.data + d, x.v.stride, x.keys, columns, packed_keys,
              RoundUp(kProductTile, columns), values_.mutable_data_ptr<T>() + d * packed_keys);
  }
}

template <typename T>
void AttentionForward<T>::ComputeBlock(const AttentionQueries<T>& x, int64_t head, int64_t begin,
                                       int64_t count) {
  // Two numbers of rows, so that few kernels are compiled.
  const int64_t rows = count <= kProductTile ? kProductTile : kAttentionRows;
  const int64_t packed_dim = RoundUp(kRowsTogether<T>, head_dim_);
  T* const queries = queries_.mutable_data_ptr<T>();
  std::fill_n(queries, rows * packed_dim, T(0));
  for (int64_t t = 0; t < count; ++t) {
    std::copy_n(x.q[begin + t] + head * head_dim_, head_dim_, queries + t * packed_dim);
  }
  // The last query of the block sees the most keys.
  const int64_t before = x.causal ? x.keys - x.queries + begin : x.keys - 1;
  const int64_t seen = std::min(x.keys, x.causal ? before + count : x.keys);
  const int64_t space = RoundUp(kDepthTile, seen);
  const int64_t packed_keys = RoundUp(kDepthTile, x.keys);
  float* const scores = scores_.mutable_data_ptr<float>();
  for (int64_t key = 0; key < seen; key += kPanelColumns) {
    // Panels are as wide as all keys make them.
    const int64_t width = RoundUp(kDepthTile, std::min(kPanelColumns, x.keys - key));
    MultiplyPanel(queries, packed_dim, rows, packed_dim,
                  keys_.const_data_ptr<T>() + key * packed_dim, width, scores + key, stride_,
                  /*add=*/false);
  }
  T* const probabilities = probabilities_.mutable_data_ptr<T>();
  float inverse_sum[kAttentionRows];
  for (int64_t t = 0; t < count; ++t) {
    const int64_t visible = x.causal ? before + t + 1 : x.keys;
    const float* const row = scores + t * stride_;
    T* const to = probabilities + t * stride_;
    const float shift = scale_ * row::Max(row, visible);
    const float sum = row::ExpAndSum(row, scale_, shift, AsRow(to), visible);
    std::fill(to + visible, to + space, T(0));
    inverse_sum[t] = 1.0f / sum;
    x.log_sum_exp[(begin + t) * x.log_sum_exp_stride + head] = shift + std::log(sum);
  }
  for (int64_t t = count; t < rows; ++t) std::fill_n(probabilities + t * stride_, space, T(0));
  const int64_t width = RoundUp(kProductTile, head_dim_);
  float* const sum = sum_.mutable_data_ptr<float>();
  for (int64_t d = 0; d < head_dim_; d += kPanelColumns) {
    const int64_t columns = RoundUp(kProductTile, std::min(kPanelColumns, head_dim_ - d));
    const T* const panel = values_.const_data_ptr<T>() + d * packed_keys;
    for (int64_t key = 0; key < space; key += kAttentionDepth) {
      MultiplyPanel(probabilities + key, stride_, rows, std::min(kAttentionDepth, space - key),
                    panel + key * columns, columns, sum + d, width, /*add=*/key > 0);
    }
  }
  for (int64_t t = 0; t < count; ++t) {
    row::Scale(sum + t * width, inverse_sum[t], AsRow(x.out[begin + t] + head * head_dim_),
               head_dim_);
  }
}

template class AttentionForward<float>;
template class AttentionForward<at::BFloat16>;

}  // namespace pricer
