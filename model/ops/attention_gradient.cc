#include "model/ops/attention_gradient.h"

#include <ATen/native/CPUBlas.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "model/ops/attention_blocks.h"
#include "model/ops/rows.h"

namespace pricer {
namespace {

void Copy(const float* from, int64_t n, float* to) { std::copy_n(from, n, to); }
void Copy(const at::BFloat16* from, int64_t n, float* to) { std::copy_n(from, n, to); }
void Copy(const at::BFloat16* from, int64_t n, at::BFloat16* to) { std::copy_n(from, n, to); }

// The products in fp32, by ATen.
template <typename T>
class FloatProducts {
 public:
  using Element = float;

  FloatProducts(int64_t group, int64_t head_dim) : group_(group), head_dim_(head_dim) {}

  void SetKeys(const AttentionHeads<T>& heads) {
    keys_ = at::empty({heads.keys, head_dim_}, at::kFloat);
    values_ = at::empty({heads.keys, head_dim_}, at::kFloat);
    grad_keys_ = at::zeros({heads.keys, head_dim_}, at::kFloat);
    grad_values_ = at::zeros({heads.keys, head_dim_}, at::kFloat);
    for (int64_t t = 0; t < heads.keys; ++t) {
      Copy(heads.k[t], head_dim_, keys_.mutable_data_ptr<float>() + t * head_dim_);
      Copy(heads.v[t], head_dim_, values_.mutable_data_ptr<float>() + t * head_dim_);
    }
  }

  // Queries `begin` to `end`, which see the first `keys` keys.
  void SetQueries(const AttentionHeads<T>& heads, int64_t begin, int64_t end, int64_t keys) {
    const int64_t width = group_ * head_dim_;
    const int64_t columns = (end - begin) * group_;
    seen_ = keys;
    queries_ = at::empty({columns, head_dim_}, at::kFloat);
    grad_out_ = at::empty({columns, head_dim_}, at::kFloat);
    for (int64_t t = begin; t < end; ++t) {
      Copy(heads.q[t], width, queries_.mutable_data_ptr<float>() + (t - begin) * width);
      Copy(heads.grad_out[t], width, grad_out_.mutable_data_ptr<float>() + (t - begin) * width);
    }
    scores_ = at::mm(keys_.narrow(0, 0, keys), queries_.t());
    grad_probabilities_ = at::mm(values_.narrow(0, 0, keys), grad_out_.t());
  }

  int64_t columns() const { return queries_.size(0); }
  // [keys, columns]; the probabilities and the gradients of the scores take their places.
  const float* scores() const { return scores_.const_data_ptr<float>(); }
  const float* grad_probabilities() const { return grad_probabilities_.const_data_ptr<float>(); }
  float* probabilities() { return scores_.mutable_data_ptr<float>(); }
  float* grad_scores() { return grad_probabilities_.mutable_data_ptr<float>(); }

  void Accumulate() {
    grad_values_.narrow(0, 0, seen_).addmm_(scores_, grad_out_);
    grad_keys_.narrow(0, 0, seen_).addmm_(grad_probabilities_, queries_);
    grad_queries_ = at::mm(grad_probabilities_.t(), keys_.narrow(0, 0, seen_));
  }

  void DropQueries() {
    queries_ = grad_out_ = grad_queries_ = scores_ = grad_probabilities_ = at::Tensor();
  }

  const float* grad_keys() const { return grad_keys_.const_data_ptr<float>(); }
  const float* grad_values() const { return grad_values_.const_data_ptr<float>(); }
  // [columns, D]
  const at::Tensor& grad_queries() const { return grad_queries_; }

 private:
  const int64_t group_;
  const int64_t head_dim_;
  int64_t seen_ = 0;
  at::Tensor keys_, values_, grad_keys_, grad_values_;  // [keys, D]
  at::Tensor queries_, grad_out_, grad_queries_;        // [columns, D]
  at::Tensor scores_, grad_probabilities_;              // [seen, columns]
};

// The products in bf16 with fp32 sums, by the micro-kernels of oneDNN that ATen's own attention
// uses. Their right operand lies in panels of columns, in which rows are paired: element (k, n) at
// [n / w][k / 2][n % w][k % 2], w the panel's width.
class Bf16Products {
 public:
  using Element = at::BFloat16;

  static bool Supports(int64_t head_dim) {
    return HeadFitsBf16Products(head_dim) && at::native::cpublas::could_pack(at::kBFloat16);
  }

  Bf16Products(int64_t group, int64_t head_dim) : group_(group), head_dim_(head_dim) {}
  Bf16Products(const Bf16Products&) = delete;
  Bf16Products& operator=(const Bf16Products&) = delete;
  ~Bf16Products() { at::native::cpublas::brgemm_release(); }

  void SetKeys(const AttentionHeads<at::BFloat16>& heads) {
    rows_ = RoundUpTo(kAttentionTile, heads.keys);
    keys_ = at::zeros({rows_, head_dim_}, at::kBFloat16);
    values_ = at::zeros({rows_, head_dim_}, at::kBFloat16);
    keys_transposed_ = at::zeros({head_dim_, rows_}, at::kBFloat16);
    grad_keys_ = at::zeros({rows_, head_dim_}, at::kFloat);
    grad_values_ = at::zeros({rows_, head_dim_}, at::kFloat);
    auto* transposed = keys_transposed_.mutable_data_ptr<at::BFloat16>();
    for (int64_t t = 0; t < heads.keys; ++t) {
      Copy(heads.k[t], head_dim_, keys_.mutable_data_ptr<at::BFloat16>() + t * head_dim_);
      Copy(heads.v[t], head_dim_, values_.mutable_data_ptr<at::BFloat16>() + t * head_dim_);
      for (int64_t d = 0; d < head_dim_; ++d) transposed[d * rows_ + t] = heads.k[t][d];
    }
  }

  void SetQueries(const AttentionHeads<at::BFloat16>& heads, int64_t begin, int64_t end,
                  int64_t keys) {
    const int64_t width = group_ * head_dim_;
    const int64_t columns = RoundUpTo(kAttentionPanel, (end - begin) * group_);
    seen_ = RoundUpTo(kAttentionTile, keys);
    queries_ = at::zeros({columns, head_dim_}, at::kBFloat16);
    grad_out_ = at::zeros({columns, head_dim_}, at::kBFloat16);
    for (int64_t t = begin; t < end; ++t) {
      const int64_t to = (t - begin) * width;
      Copy(heads.q[t], width, queries_.mutable_data_ptr<at::BFloat16>() + to);
      Copy(heads.grad_out[t], width, grad_out_.mutable_data_ptr<at::BFloat16>() + to);
    }
    // Rows of keys that only fill up stay zero.
    probabilities_ = at::zeros({seen_, columns}, at::kBFloat16);
    grad_scores_ = at::zeros({seen_, columns}, at::kBFloat16);
    scores_ = at::empty({seen_, columns}, at::kFloat);
    grad_probabilities_ = at::empty({seen_, columns}, at::kFloat);
    grad_queries_ = at::empty({head_dim_, columns}, at::kFloat);
    packed_ = at::empty({columns, std::max(head_dim_, seen_)}, at::kBFloat16);
    PackTransposed(queries_);
    MultiplyPacked(keys_.narrow(0, 0, seen_), scores_);
    PackTransposed(grad_out_);
    MultiplyPacked(values_.narrow(0, 0, seen_), grad_probabilities_);
  }

  int64_t columns() const { return queries_.size(0); }
  const float* scores() const { return scores_.const_data_ptr<float>(); }
  const float* grad_probabilities() const { return grad_probabilities_.const_data_ptr<float>(); }
  at::BFloat16* probabilities() { return probabilities_.mutable_data_ptr<at::BFloat16>(); }
  at::BFloat16* grad_scores() { return grad_scores_.mutable_data_ptr<at::BFloat16>(); }

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

  const float* grad_keys() const { return grad_keys_.const_data_ptr<float>(); }
  const float* grad_values() const { return grad_values_.const_data_ptr<float>(); }
  at::Tensor grad_queries() const { return grad_queries_.t(); }

 private:
  static int64_t PanelWidth(int64_t n) {
    return n % kAttentionPanel == 0 ? kAttentionPanel : kAttentionTile;
  }

  // The first rows of out [.., n] = left [m, k] times the packed [k, n].
  void MultiplyPacked(const at::Tensor& left, const at::Tensor& out, bool add = false) {
    const int64_t k = left.size(1);
    const int64_t n = out.size(1);
    const int64_t width = PanelWidth(n);
    for (int64_t column = 0; column < n; column += width) {
      at::native::cpublas::brgemm(left.size(0), width, k, left.stride(0), width, n, add,
                                  left.const_data_ptr<at::BFloat16>(),
                                  packed_.const_data_ptr<at::BFloat16>() + column * k,
                                  out.mutable_data_ptr<float>() + column);
    }
  }

  void Pack(const at::Tensor& matrix) {
    const int64_t k = matrix.size(0);
    const int64_t n = matrix.size(1);
    const int64_t width = PanelWidth(n);
    for (int64_t column = 0; column < n; column += width) {
      at::native::cpublas::pack(k, width, n, width, at::kBFloat16, at::kBFloat16,
                                matrix.const_data_ptr<at::BFloat16>() + column,
                                packed_.mutable_data_ptr<at::BFloat16>() + column * k);
    }
  }

  // Of a matrix [columns, D] its transpose: pairs stay side by side.
  void PackTransposed(const at::Tensor& matrix) {
    const int64_t pairs = head_dim_ / 2;
    struct Pair {
      at::BFloat16 values[2];
    };
    const auto* from = static_cast<const Pair*>(matrix.const_data_ptr());
    auto* to = static_cast<Pair*>(packed_.mutable_data_ptr());
    for (int64_t panel = 0; panel < matrix.size(0);
         panel += kAttentionPanel, to += pairs * kAttentionPanel) {
      for (int64_t c = 0; c < kAttentionPanel; ++c) {
        for (int64_t p = 0; p < pairs; ++p)
          to[p * kAttentionPanel + c] = from[(panel + c) * pairs + p];
      }
    }
  }

  const int64_t group_;
  const int64_t head_dim_;
  int64_t rows_ = 0;                                    // keys, rounded up
  int64_t seen_ = 0;                                    // keys of the block, rounded up
  at::Tensor keys_, values_, grad_keys_, grad_values_;  // [rows, D]
  at::Tensor keys_transposed_;                          // [D, rows]
  at::Tensor queries_, grad_out_;                       // [columns, D], columns rounded up
  at::Tensor grad_queries_;                             // [D, columns]
  at::Tensor scores_, grad_probabilities_;              // [seen, columns] fp32
  at::Tensor probabilities_, grad_scores_;              // [seen, columns] bf16
  at::Tensor packed_;                                   // the right operand of the next product
};

template <typename T, typename Products>
class GradientByProducts : public AttentionGradient<T> {
 public:
  GradientByProducts(int64_t group, int64_t head_dim) : group_(group), head_dim_(head_dim) {}

  void Compute(const AttentionHeads<T>& heads) override {
    const int64_t before = heads.keys - heads.queries;  // keys that every query sees
    Products products(group_, head_dim_);
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
      StoreGradQueries(heads, begin, end, products.grad_queries());
      products.DropQueries();
      begin = end;
    }
    const float* grad_k = products.grad_keys();
    const float* grad_v = products.grad_values();
    for (int64_t t = 0; t < heads.keys; ++t, grad_k += head_dim_, grad_v += head_dim_) {
      std::copy_n(grad_k, head_dim_, heads.grad_k[t]);
      std::copy_n(grad_v, head_dim_, heads.grad_v[t]);
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

  void ComputeRow(int64_t key, int64_t first_column, Products& products) {
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
                        const at::Tensor& queries) {
    const float* data = queries.const_data_ptr<float>();
    const int64_t column_stride = queries.stride(0);
    const int64_t stride = queries.stride(1);
    for (int64_t t = begin; t < end; ++t) {
      T* grad = heads.grad_q[t];
      for (int64_t g = 0; g < group_; ++g, grad += head_dim_, data += column_stride) {
        for (int64_t d = 0; d < head_dim_; ++d) grad[d] = data[d * stride];
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
  return std::make_unique<GradientByProducts<float, FloatProducts<float>>>(group, head_dim);
}

template <>
std::unique_ptr<AttentionGradient<at::BFloat16>> MakeAttentionGradient(int64_t group,
                                                                       int64_t head_dim) {
  using T = at::BFloat16;
  if (Bf16Products::Supports(head_dim)) {
    return std::make_unique<GradientByProducts<T, Bf16Products>>(group, head_dim);
  }
  return std::make_unique<GradientByProducts<T, FloatProducts<T>>>(group, head_dim);
}

}  // namespace pricer
