#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdint>

#include "model/ops/product_blocks.h"

// Products of few rows with a matrix that lies ready for them, summed in fp32: what the linear
// layers are built of. The micro-kernels are oneDNN's, by way of ATen. Each element is summed over
// k in one order, whatever the number of rows, so that a row's result does not depend on the
// others.

namespace pricer {

// Rows of a right operand that are interleaved: element (k, n) of a panel of width w is at
// [k / g][n][k % g] of [K / g, w, g].
template <typename T>
inline constexpr int64_t kRowsTogether = 4 / static_cast<int64_t>(sizeof(T));

// The right operand [K, N] of products, fp32 or bf16, in panels of columns. With zeros behind them,
// K is a multiple of kRowsTogether and N of kProductTile. Immutable; copies share the memory.
class PackedMatrix {
 public:
  PackedMatrix() = default;
  // A copy of `matrix`, [K, N] with any strides.
  explicit PackedMatrix(const at::Tensor& matrix);

  int64_t rows() const { return rows_; }
  int64_t columns() const { return columns_; }
  int64_t packed_rows() const { return packed_rows_; }
  int64_t panels() const { return (columns_ + kPanelColumns - 1) / kPanelColumns; }
  // Columns of a panel that belong to the matrix, and with those that fill it up.
  int64_t panel_columns(int64_t panel) const {
    return std::min(kPanelColumns, columns_ - panel * kPanelColumns);
  }
  int64_t panel_width(int64_t panel) const { return RoundUp(kProductTile, panel_columns(panel)); }
  template <typename T>
  const T* panel(int64_t panel) const {
    return memory_.const_data_ptr<T>() + panel * kPanelColumns * packed_rows_;
  }
  at::Tensor Unpack() const;  // [K, N] contiguous
  at::ScalarType dtype() const { return memory_.scalar_type(); }
  int64_t bytes() const { return memory_.defined() ? static_cast<int64_t>(memory_.nbytes()) : 0; }

 private:
  int64_t rows_ = 0;
  int64_t columns_ = 0;
  int64_t packed_rows_ = 0;
  at::Tensor memory_;
};

// Packs rows [0, rows) of `from`, row k at from + k * stride, as one panel; up to packed_rows rows
// and `width` columns with zeros.
template <typename T>
void PackPanel(const T* from, int64_t stride, int64_t rows, int64_t columns, int64_t packed_rows,
               int64_t width, T* to);

// The same of the transpose of `from`, whose row c becomes column c: at from + c * stride, `rows`
// elements of it.
template <typename T>
void PackTransposedPanel(const T* from, int64_t stride, int64_t rows, int64_t columns,
                         int64_t width, T* to);

// sum [rows, width] = left [rows, k] times the first k rows of a panel of `width` columns, or adds
// it. Row t of left is at left + t * left_stride, of sum at sum + t * sum_stride. REQUIRES: rows
// and width multiples of kProductTile, k of kRowsTogether<T>; inside of ProductScope.
template <typename T>
void MultiplyPanel(const T* left, int64_t left_stride, int64_t rows, int64_t k, const T* panel,
                   int64_t width, float* sum, int64_t sum_stride, bool add);

// While one lives, its thread may make products; it gives back what the processor holds for them.
class ProductScope {
 public:
  ProductScope() = default;
  ProductScope(const ProductScope&) = delete;
  ProductScope& operator=(const ProductScope&) = delete;
  ~ProductScope();
};

// Whether the processor has products in bf16.
bool HasBf16Products();

// MultiplyPanel where it has none: in fp32, of the same values.
void MultiplyPanelInFloat(const at::BFloat16* left, int64_t left_stride, int64_t rows, int64_t k,
                          const at::BFloat16* panel, int64_t width, float* sum, int64_t sum_stride,
                          bool add);

}  // namespace pricer
