#include "model/ops/attention_gradient.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "model/ops/attention_blocks.h"
#include "model/ops/matrix_product.h"
#include "model/ops/rows.h"

namespace pricer {
namespace {

// The products of one sequence and one key head. Columns are those of the block's queries, G for
// each; all operands are filled up with zeros.
template <typename T>
class BlockProducts {
 public:
  BlockProducts(int64_t group, int64_t head_dim)
      : group_(group), head_dim_(head_dim), width_(RoundUp(kProductTile, head_dim)) {}

  void SetKeys(const AttentionHeads<T>& heads) {
    rows_ = RoundUp(kDepthTile, heads.keys);
    keys_ = at::zeros({rows_, width_}, kDtype);
    values_ = at::zeros({rows_, width_}, kDtype);
    keys_transposed_ = at::zeros({width_, rows_}, kDtype);
    grad_keys_ = at::zeros({rows_, width_}, at::kFloat);
    grad_values_ = at::zeros({rows_, width_}, at::kFloat);
    T* const transposed = keys_transposed_.mutable_data_ptr<T>();
    for (int64_t t = 0; t < heads.keys; ++t) {
      std::copy_n(heads.k[t], head_dim_, keys_.mutable_data_ptr<T>() + t * width_);
      std::copy_n(heads.v[t], head_dim_, values_.mutable_data_ptr<T>() + t * width_);
      for (int64_t d = 0; d < head_dim_; ++d) transposed[d * rows_ + t] = heads.k[t][d];
    }
  }

  // Queries `begin` to `end`, which see the first `keys` keys.
  void SetQueries(const AttentionHeads<T>& heads, int64_t begin, int64_t end, int64_t keys) {
    const int64_t columns = RoundUp(kPanelColumns, (end - begin) * group_);
    seen_ = RoundUp(kDepthTile, keys);
    queries_ = at::zeros({columns, width_}, kDtype);
    grad_out_ = at::zeros({columns, width_}, kDtype);
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t g = 0; g < group_; ++g) {
        const int64_t to = ((t - begin) * group_ + g) * width_;
        std::copy_n(heads.q[t] + g * head_dim_, head_dim_, queries_.mutable_data_ptr<T>() + to);
        std::copy_n(heads.grad_out[t] + g * head_dim_, head_dim_,
                    grad_out_.mutable_data_ptr<T>() + to);
      }
    }
    // Rows of keys that only fill up stay zero.
    probabilities_ = at::zeros({seen_, columns}, kDtype);
    grad_scores_ = at::zeros({seen_, columns}, kDtype);
    scores_ = at::empty({seen_, columns}, at::kFloat);
    grad_probabilities_ = at::empty({seen_, columns}, at::kFloat);
    grad_queries_ = at::empty({width_, columns}, at::kFloat);
    packed_ = at::empty({columns * std::max(width_, seen_)}, kDtype);
    PackTransposed(queries_);
    MultiplyPacked(keys_.narrow(0, 0, seen_), scores_);
    PackTransposed(grad_out_);
    MultiplyPacked(values_.narrow(0, 0, seen_), grad_probabilities_);
  }

  int64_t columns() const { return queries_.size(0); }
  // [keys, columns]
  const float* scores() const { return scores_.const_data_ptr<float>(); }
  const float* grad_probabilities() const { return grad_probabilities_.const_data_ptr<float>(); }
  T* probabilities() { return probabilities_.mutable_data_ptr<T>(); }
  T* grad_scores() { return grad_scores_.mutable_data_ptr<T>(); }

  void Accumulate() {
    Pack(grad_out_);
    MultiplyPacked(probabilities_, grad_values_, /*add=*/true);
    Pack(queries_);
    MultiplyPacked(grad_scores_, grad_keys_, /*add=*/true);
    Pack(grad_scores_);
    MultiplyPacked(keys_transposed_.narrow(1, 0, seen_), grad_queries_);
  }

  void DropQueries() {
    queries_ = grad_out_ = grad_queries_ = scores_ = grad_probabilities_ = at::Tensor();
    probabilities_ = grad_scores_ = packed_ = at::Tensor();
  }

  // Row t at t * width().
  const float* grad_keys() const { return grad_keys_.const_data_ptr<float>(); }
  const float* grad_values() const { return grad_values_.const_data_ptr<float>(); }
  int64_t width() const { return width_; }
  // Element d of a column at d * columns().
  const float* grad_queries() const { return grad_queries_.const_data_ptr<float>(); }

 private:
  static constexpr at::ScalarType kDtype = c10::CppTypeToScalarType<T>::value;

  // Calls body(first column, width) for the panels of n columns.
  template <typename Body>
  static void ForPanels(int64_t n, const Body& body) {
    for (int64_t column = 0; column < n; column += kPanelColumns) {
      body(column, std::min(kPanelColumns, n - column));
    }
  }

  // The first rows of out [.., n] = left [m, k] times the packed [k, n].
  void MultiplyPacked(const at::Tensor& left, const at::Tensor& out, bool add = false) {
    const int64_t k = left.size(1);
    const int64_t n = out.size(1);
    ForPanels(n, [&](int64_t column, int64_t width) {
      MultiplyPanel(left.const_data_ptr<T>(), left.stride(0), left.size(0), k,
                    packed_.const_data_ptr<T>() + column * k, width,
                    out.mutable_data_ptr<float>() + column, n, add);
    });
  }

  void Pack(const at::Tensor& matrix) {
    const int64_t k = matrix.size(0);
    const int64_t n = matrix.size(1);
    ForPanels(n, [&](int64_t column, int64_t width) {
      PackPanel(matrix.const_data_ptr<T>() + column, n, k, width, k, width,
                packed_.mutable_data_ptr<T>() + column * k);
    });
  }

  // Of a matrix [columns, D] its transpose.
  void PackTransposed(const at::Tensor& matrix) {
    ForPanels(matrix.size(0), [&](int64_t column, int64_t width) {
      PackTransposedPanel(matrix.const_data_ptr<T>() + column * width_, width_, width_, width,
                          width, packed_.mutable_data_ptr<T>() + column * width_);
    });
  }

  const int64_t group_;
  const int64_t head_dim_;
  const int64_t width_;                                 // head_dim, rounded up: D
  int64_t rows_ = 0;                                    // keys, rounded up
  int64_t seen_ = 0;                                    // keys of the block, rounded up
  at::Tensor keys_, values_, grad_keys_, grad_values_;  // [rows, D]
  at::Tensor keys_transposed_;                          // [D, rows]
  at::Tensor queries_, grad_out_;                       // [columns, D], columns rounded up
  at::Tensor grad_queries_;                             // [D, columns]
  at::Tensor scores_, grad_probabilities_;              // [seen, columns] fp32
  at::Tensor probabilities_, grad_scores_;              // [seen, columns]
  at::Tensor packed_;                                   // the right operand of the next product
};

template <typename T>
class BlockwiseGradient : public AttentionGradient<T> {
 public:
  BlockwiseGradient(int64_t group, int64_t head_dim) : group_(group), head_dim_(head_dim) {}

  void Compute(const AttentionHeads<T>& heads) override {
    const int64_t before = heads.keys - heads.queries;  // keys that every query sees
    const ProductScope scope;
    BlockProducts<T> products(group_, head_dim_);
    products.SetKeys(heads);
    for (int64_t begin = 0; begin < heads.queries;) {
      const int64_t end =
          std::min(heads.queries, begin + AttentionBlockQueries(before + begin, group_));
      products.SetQueries(heads, begin, end, before + end);
      DescribeColumns(heads, begin, end, products.columns());
      for (int64_t key = 0; key < before + end; ++key) {
        // Keys do not see the queries before their own token.
        ComputeRow(key, std::max<int64_t>(0, key - before - begin) * group_, products);
      }
      products.Accumulate();
      StoreGradQueries(heads, begin, end, products);
      products.DropQueries();
      begin = end;
    }
    const float* grad_k = products.grad_keys();
    const float* grad_v = products.grad_values();
    for (int64_t t = 0; t < heads.keys; ++t) {
      std::copy_n(grad_k, head_dim_, heads.grad_k[t]);
      std::copy_n(grad_v, head_dim_, heads.grad_v[t]);
      grad_k += products.width();
      grad_v += products.width();
    }
  }

 private:
  void DescribeColumns(const AttentionHeads<T>& heads, int64_t begin, int64_t end,
                       int64_t columns) {
    // Columns that only fill up have probabilities of zero.
    log_sum_exp_.assign(columns, std::numeric_limits<float>::max());
    grad_dot_out_.assign(columns, 0.0f);
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t g = 0; g < group_; ++g) {
        const int64_t column = (t - begin) * group_ + g;
        log_sum_exp_[column] = heads.log_sum_exp[t * heads.log_sum_exp_stride + g];
        grad_dot_out_[column] = row::Dot(AsRow(heads.grad_out[t] + g * head_dim_),
                                         AsRow(heads.out[t] + g * head_dim_), head_dim_);
      }
    }
  }

  void ComputeRow(int64_t key, int64_t first_column, BlockProducts<T>& products) {
    const int64_t columns = products.columns();
    const int64_t at = key * columns + first_column;
    auto* probabilities = products.probabilities() + key * columns;
    auto* grad_scores = products.grad_scores() + key * columns;
    std::fill_n(probabilities, first_column, 0.0f);
    std::fill_n(grad_scores, first_column, 0.0f);
    row::AttentionGradient(products.scores() + at, products.grad_probabilities() + at,
                           &log_sum_exp_[first_column], &grad_dot_out_[first_column], scale_,
                           AsRow(probabilities + first_column), AsRow(grad_scores + first_column),
                           columns - first_column);
  }

  void StoreGradQueries(const AttentionHeads<T>& heads, int64_t begin, int64_t end,
                        const BlockProducts<T>& products) {
    const float* column = products.grad_queries();
    const int64_t stride = products.columns();
    for (int64_t t = begin; t < end; ++t) {
      T* grad = heads.grad_q[t];
      for (int64_t g = 0; g < group_; ++g, grad += head_dim_, ++column) {
        for (int64_t d = 0; d < head_dim_; ++d) grad[d] = column[d * stride];
      }
    }
  }

  const int64_t group_;
  const int64_t head_dim_;
  const float scale_ = 1.0f / std::sqrt(static_cast<float>(head_dim_));
  std::vector<float> log_sum_exp_, grad_dot_out_;  // of the block's columns
};

}  // namespace

template <>
std::unique_ptr<AttentionGradient<float>> MakeAttentionGradient(int64_t group, int64_t head_dim) {
  return std::make_unique<BlockwiseGradient<float>>(group, head_dim);
}

template <>
std::unique_ptr<AttentionGradient<at::BFloat16>> MakeAttentionGradient(int64_t group,
                                                                       int64_t head_dim) {
  return std::make_unique<BlockwiseGradient<at::BFloat16>>(group, head_dim);
}

}  // namespace pricer
