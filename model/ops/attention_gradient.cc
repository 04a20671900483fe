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
  BlockProducts(const AttentionGradientSizes& sizes, int64_t group, int64_t head_dim)
      : group_(group), head_dim_(head_dim), width_(RoundUp(kProductTile, head_dim)) {
    constexpr at::ScalarType kDtype = c10::CppTypeToScalarType<T>::value;
    for (at::Tensor* const of_keys : {&keys_, &values_, &keys_transposed_}) {
      *of_keys = at::empty({sizes.keys * width_}, kDtype);
    }
    grad_keys_ = at::empty({sizes.keys * width_}, at::kFloat);
    grad_values_ = at::empty({sizes.keys * width_}, at::kFloat);
    queries_ = at::empty({sizes.columns * width_}, kDtype);
    grad_out_ = at::empty({sizes.columns * width_}, kDtype);
    grad_queries_ = at::empty({sizes.columns * width_}, at::kFloat);
    scores_ = at::empty({sizes.scores}, at::kFloat);
    grad_probabilities_ = at::empty({sizes.scores}, at::kFloat);
    probabilities_ = at::empty({sizes.scores}, kDtype);
    grad_scores_ = at::empty({sizes.scores}, kDtype);
    packed_ = at::empty({sizes.packed}, kDtype);
  }

  void SetKeys(const AttentionHeads<T>& heads) {
    rows_ = RoundUp(kDepthTile, heads.keys);
    T* const keys = Zeroed<T>(keys_, rows_ * width_);
    T* const values = Zeroed<T>(values_, rows_ * width_);
    T* const transposed = Zeroed<T>(keys_transposed_, width_ * rows_);
    Zeroed<float>(grad_keys_, rows_ * width_);
    Zeroed<float>(grad_values_, rows_ * width_);
    for (int64_t t = 0; t < heads.keys; ++t) {
      std::copy_n(heads.k[t], head_dim_, keys + t * width_);
      std::copy_n(heads.v[t], head_dim_, values + t * width_);
      for (int64_t d = 0; d < head_dim_; ++d) transposed[d * rows_ + t] = heads.k[t][d];
    }
  }

  // Queries `begin` to `end`, which see the first `keys` keys.
  void SetQueries(const AttentionHeads<T>& heads, int64_t begin, int64_t end, int64_t keys) {
    columns_ = RoundUp(kPanelColumns, (end - begin) * group_);
    seen_ = RoundUp(kDepthTile, keys);
    T* const queries = Zeroed<T>(queries_, columns_ * width_);
    T* const grad_out = Zeroed<T>(grad_out_, columns_ * width_);
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t g = 0; g < group_; ++g) {
        const int64_t to = ((t - begin) * group_ + g) * width_;
        std::copy_n(heads.q[t] + g * head_dim_, head_dim_, queries + to);
        std::copy_n(heads.grad_out[t] + g * head_dim_, head_dim_, grad_out + to);
      }
    }
    // Rows of keys that only fill up stay zero.
    Zeroed<T>(probabilities_, seen_ * columns_);
    Zeroed<T>(grad_scores_, seen_ * columns_);
    PackTransposed(queries);
    MultiplyPacked({Data(keys_), width_, seen_, width_}, Sums(scores_), columns_);
    PackTransposed(grad_out);
    MultiplyPacked({Data(values_), width_, seen_, width_}, Sums(grad_probabilities_), columns_);
  }

  int64_t columns() const { return columns_; }
  // [keys, columns]
  const float* scores() const { return scores_.const_data_ptr<float>(); }
  const float* grad_probabilities() const { return grad_probabilities_.const_data_ptr<float>(); }
  T* probabilities() { return Data(probabilities_); }
  T* grad_scores() { return Data(grad_scores_); }

  void Accumulate() {
    Pack(Data(grad_out_), columns_, width_);
    MultiplyPacked({Data(probabilities_), columns_, seen_, columns_}, Sums(grad_values_), width_,
                   /*add=*/true);
    Pack(Data(queries_), columns_, width_);
    MultiplyPacked({Data(grad_scores_), columns_, seen_, columns_}, Sums(grad_keys_), width_,
                   /*add=*/true);
    Pack(Data(grad_scores_), seen_, columns_);
    MultiplyPacked({Data(keys_transposed_), rows_, width_, seen_}, Sums(grad_queries_), columns_);
  }

  // Row t at t * width().
  const float* grad_keys() const { return grad_keys_.const_data_ptr<float>(); }
  const float* grad_values() const { return grad_values_.const_data_ptr<float>(); }
  int64_t width() const { return width_; }
  // Element d of a column at d * columns().
  const float* grad_queries() const { return grad_queries_.const_data_ptr<float>(); }

 private:
  struct Left {
    const T* data;
    int64_t stride;
    int64_t rows;
    int64_t k;
  };

  static T* Data(const at::Tensor& tensor) { return tensor.mutable_data_ptr<T>(); }
  static float* Sums(const at::Tensor& tensor) { return tensor.mutable_data_ptr<float>(); }
  template <typename U>
  static U* Zeroed(const at::Tensor& tensor, int64_t n) {
    U* const data = tensor.mutable_data_ptr<U>();
    std::fill_n(data, n, U(0));
    return data;
  }

  // Calls body(first column, width) for the panels of n columns.
  template <typename Body>
  static void ForPanels(int64_t n, const Body& body) {
    for (int64_t column = 0; column < n; column += kPanelColumns) {
      body(column, std::min(kPanelColumns, n - column));
    }
  }

  // The first rows of sum [.., n] = left times the packed [k, n].
  void MultiplyPacked(const Left& left, float* sum, int64_t n, bool add = false) {
    ForPanels(n, [&](int64_t column, int64_t width) {
      MultiplyPanel(left.data, left.stride, left.rows, left.k,
                    packed_.const_data_ptr<T>() + column * left.k, width, sum + column, n, add);
    });
  }

  void Pack(const T* matrix, int64_t k, int64_t n) {
    ForPanels(n, [&](int64_t column, int64_t width) {
      PackPanel(matrix + column, n, k, width, k, width, Data(packed_) + column * k);
    });
  }

  // Of a matrix [columns, D] its transpose.
  void PackTransposed(const T* matrix) {
    ForPanels(columns_, [&](int64_t column, int64_t width) {
      PackTransposedPanel(matrix + column * width_, width_, width_, width, width,
                          Data(packed_) + column * width_);
    });
  }

  const int64_t group_;
  const int64_t head_dim_;
  const int64_t width_;                                 // head_dim, rounded up: D
  int64_t rows_ = 0;                                    // keys, rounded up
  int64_t seen_ = 0;                                    // keys of the block, rounded up
  int64_t columns_ = 0;                                 // of the block, rounded up
  at::Tensor keys_, values_, grad_keys_, grad_values_;  // [rows, D]
  at::Tensor keys_transposed_;                          // [D, rows]
  at::Tensor queries_, grad_out_;                       // [columns, D]
  at::Tensor grad_queries_;                             // [D, columns]
  at::Tensor scores_, grad_probabilities_;              // [seen, columns] fp32
  at::Tensor probabilities_, grad_scores_;              // [seen, columns]
  at::Tensor packed_;                                   // the right operand of the next product
};

template <typename T>
class BlockwiseGradient : public AttentionGradient<T> {
 public:
  BlockwiseGradient(const AttentionGradientSizes& sizes, int64_t group, int64_t head_dim)
      : group_(group), head_dim_(head_dim), products_(sizes, group, head_dim) {}

  void Compute(const AttentionHeads<T>& heads) override {
    const int64_t before = heads.keys - heads.queries;  // keys that every query sees
    products_.SetKeys(heads);
    for (int64_t begin = 0; begin < heads.queries;) {
      const int64_t end =
          std::min(heads.queries, begin + AttentionBlockQueries(before + begin, group_));
      products_.SetQueries(heads, begin, end, before + end);
      DescribeColumns(heads, begin, end, products_.columns());
      for (int64_t key = 0; key < before + end; ++key) {
        // Keys do not see the queries before their own token.
        ComputeRow(key, std::max<int64_t>(0, key - before - begin) * group_);
      }
      products_.Accumulate();
      StoreGradQueries(heads, begin, end);
      begin = end;
    }
    const float* grad_k = products_.grad_keys();
    const float* grad_v = products_.grad_values();
    for (int64_t t = 0; t < heads.keys; ++t) {
      std::copy_n(grad_k, head_dim_, heads.grad_k[t]);
      std::copy_n(grad_v, head_dim_, heads.grad_v[t]);
      grad_k += products_.width();
      grad_v += products_.width();
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

  void ComputeRow(int64_t key, int64_t first_column) {
    const int64_t columns = products_.columns();
    const int64_t at = key * columns + first_column;
    auto* probabilities = products_.probabilities() + key * columns;
    auto* grad_scores = products_.grad_scores() + key * columns;
    std::fill_n(probabilities, first_column, 0.0f);
    std::fill_n(grad_scores, first_column, 0.0f);
    row::AttentionGradient(products_.scores() + at, products_.grad_probabilities() + at,
                           &log_sum_exp_[first_column], &grad_dot_out_[first_column], scale_,
                           AsRow(probabilities + first_column), AsRow(grad_scores + first_column),
                           columns - first_column);
  }

  void StoreGradQueries(const AttentionHeads<T>& heads, int64_t begin, int64_t end) {
    const float* column = products_.grad_queries();
    const int64_t stride = products_.columns();
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
  BlockProducts<T> products_;
  std::vector<float> log_sum_exp_, grad_dot_out_;  // of the block's columns
};

}  // namespace

template <typename T>
std::unique_ptr<AttentionGradient<T>> MakeAttentionGradient(const AttentionGradientSizes& sizes,
                                                            int64_t group, int64_t head_dim) {
  return std::make_unique<BlockwiseGradient<T>>(sizes, group, head_dim);
}

template std::unique_ptr<AttentionGradient<float>> MakeAttentionGradient(
    const AttentionGradientSizes&, int64_t, int64_t);
template std::unique_ptr<AttentionGradient<at::BFloat16>> MakeAttentionGradient(
    const AttentionGradientSizes&, int64_t, int64_t);

}  // namespace pricer
