#include "model/ops/matrix_product.h"

#include <ATen/native/CPUBlas.h>

#include <cstring>
#include <exception>
#include <vector>

#include "model/ops/rows.h"

namespace pricer {
namespace {

namespace blas = at::native::cpublas;

// Of a longer sum parts are added up, since its operands would leave the cache: as many terms as
// have so many bytes.
constexpr int64_t kMostBytes = 4096;

bool TryBf16Product() {
  std::vector<at::BFloat16> operand(2 * kProductTile * kProductTile);
  std::vector<float> sum(kProductTile * kProductTile);
  try {
    blas::brgemm(kProductTile, kProductTile, kProductTile, kProductTile, kProductTile, kProductTile,
                 /*add_C=*/false, operand.data(), operand.data(), sum.data(), /*is_vnni=*/true);
  } catch (const std::exception&) {
    return false;
  }
  blas::brgemm_release(/*is_vnni=*/true);
  return true;
}

// Words of four bytes: one fp32 or two bf16 of neighbouring rows. Word (r, c) of the panel is
// number r of row c of `from`.
void TransposeWords(const char* from, int64_t stride_bytes, int64_t words, int64_t columns,
                    int64_t width, char* to) {
  constexpr int64_t kWord = 4;
  constexpr int64_t kWordsOfLine = 16;
  for (int64_t first = 0; first < words; first += kWordsOfLine) {
    const int64_t last = std::min(words, first + kWordsOfLine);
    for (int64_t c = 0; c < columns; ++c) {
      for (int64_t r = first; r < last; ++r) {
        std::memcpy(to + (r * width + c) * kWord, from + c * stride_bytes + r * kWord, kWord);
      }
    }
  }
}

void MultiplyPart(const float* left, int64_t left_stride, int64_t rows, int64_t k,
                  const float* panel, int64_t width, float* sum, int64_t sum_stride, bool add) {
  blas::brgemm(rows, width, k, left_stride, width, sum_stride, add, left, panel, sum,
               /*is_vnni=*/false);
}

void MultiplyPart(const at::BFloat16* left, int64_t left_stride, int64_t rows, int64_t k,
                  const at::BFloat16* panel, int64_t width, float* sum, int64_t sum_stride,
                  bool add) {
  if (!HasBf16Products()) {
    return MultiplyPanelInFloat(left, left_stride, rows, k, panel, width, sum, sum_stride, add);
  }
  blas::brgemm(rows, width, k, left_stride, width, sum_stride, add, left, panel, sum,
               /*is_vnni=*/true);
}

}  // namespace

bool HasBf16Products() {
  static const bool has = TryBf16Product();
  return has;
}

void MultiplyPanelInFloat(const at::BFloat16* left, int64_t left_stride, int64_t rows, int64_t k,
                          const at::BFloat16* panel, int64_t width, float* sum, int64_t sum_stride,
                          bool add) {
  thread_local std::vector<float> wide_left;
  thread_local std::vector<float> wide_panel;
  wide_left.resize(rows * k);
  wide_panel.resize(width * k);
  for (int64_t t = 0; t < rows; ++t) {
    row::Widen(AsRow(left + t * left_stride), &wide_left[t * k], k);
  }
  for (int64_t pair = 0; pair < k / 2; ++pair) {
    row::WidenPairs(AsRow(panel + 2 * pair * width), &wide_panel[2 * pair * width],
                    &wide_panel[(2 * pair + 1) * width], width);
  }
  blas::brgemm(rows, width, k, k, width, sum_stride, add, wide_left.data(), wide_panel.data(), sum,
               /*is_vnni=*/false);
}

ProductScope::~ProductScope() { blas::brgemm_release(/*is_vnni=*/true); }

template <typename T>
void PackPanel(const T* from, int64_t stride, int64_t rows, int64_t columns, int64_t packed_rows,
               int64_t width, T* to) {
  if (columns < width) std::fill_n(to, packed_rows * width, T(0));
  int64_t k = 0;
  if constexpr (kRowsTogether<T> == 1) {
    for (; k < rows; ++k) std::copy_n(from + k * stride, columns, to + k * width);
  } else {
    for (; k + 1 < rows; k += 2) {
      row::Interleave(AsRow(from + k * stride), AsRow(from + (k + 1) * stride),
                      AsRow(to + k * width), columns);
    }
    if (k < rows) {
      const std::vector<T> zeros(columns, T(0));
      row::Interleave(AsRow(from + k * stride), AsRow(zeros.data()), AsRow(to + k * width),
                      columns);
      k += 2;
    }
  }
  if (k < packed_rows) std::fill_n(to + k * width, (packed_rows - k) * width, T(0));
}

template void PackPanel(const float*, int64_t, int64_t, int64_t, int64_t, int64_t, float*);
template void PackPanel(const at::BFloat16*, int64_t, int64_t, int64_t, int64_t, int64_t,
                        at::BFloat16*);

template <typename T>
void PackTransposedPanel(const T* from, int64_t stride, int64_t rows, int64_t columns,
                         int64_t width, T* to) {
  const int64_t words = rows / kRowsTogether<T>;
  const int64_t packed_rows = RoundUp(kRowsTogether<T>, rows);
  if (columns < width || packed_rows > rows) std::fill_n(to, packed_rows * width, T(0));
  TransposeWords(reinterpret_cast<const char*>(from), stride * static_cast<int64_t>(sizeof(T)),
                 words, columns, width, reinterpret_cast<char*>(to));
  if (packed_rows == rows) return;
  for (int64_t c = 0; c < columns; ++c) {
    to[(words * width + c) * kRowsTogether<T>] = from[c * stride + rows - 1];
  }
}

template void PackTransposedPanel(const float*, int64_t, int64_t, int64_t, int64_t, float*);
template void PackTransposedPanel(const at::BFloat16*, int64_t, int64_t, int64_t, int64_t,
                                  at::BFloat16*);

template <typename T>
void MultiplyPanel(const T* left, int64_t left_stride, int64_t rows, int64_t k, const T* panel,
                   int64_t width, float* sum, int64_t sum_stride, bool add) {
  constexpr int64_t kMost = kMostBytes / static_cast<int64_t>(sizeof(T));
  for (int64_t first = 0; first < k; first += kMost) {
    const int64_t depth = std::min(kMost, k - first);
    MultiplyPart(left + first, left_stride, rows, depth, panel + first * width, width, sum,
                 sum_stride, add || first > 0);
  }
}

template void MultiplyPanel(const float*, int64_t, int64_t, int64_t, const float*, int64_t, float*,
                            int64_t, bool);
template void MultiplyPanel(const at::BFloat16*, int64_t, int64_t, int64_t, const at::BFloat16*,
                            int64_t, float*, int64_t, bool);

PackedMatrix::PackedMatrix(const at::Tensor& matrix)
    : rows_(matrix.size(0)), columns_(matrix.size(1)) {
  DispatchComputeType(matrix.scalar_type(), [&]<typename T>() {
    packed_rows_ = RoundUp(kRowsTogether<T>, rows_);
    memory_ = at::zeros({packed_rows_ * RoundUp(kProductTile, columns_)}, matrix.options());
    const bool transposed = matrix.stride(0) == 1 && matrix.stride(1) != 1;
    const at::Tensor source = transposed || matrix.stride(1) == 1 ? matrix : matrix.contiguous();
    for (int64_t p = 0; p < panels(); ++p) {
      T* const to = memory_.mutable_data_ptr<T>() + p * kPanelColumns * packed_rows_;
      if (transposed) {
        PackTransposedPanel(source.const_data_ptr<T>() + p * kPanelColumns * source.stride(1),
                            source.stride(1), rows_, panel_columns(p), panel_width(p), to);
      } else {
        PackPanel(source.const_data_ptr<T>() + p * kPanelColumns, source.stride(0), rows_,
                  panel_columns(p), packed_rows_, panel_width(p), to);
      }
    }
  });
}

at::Tensor PackedMatrix::Unpack() const {
  at::Tensor matrix = at::empty({rows_, columns_}, memory_.options());
  DispatchComputeType(matrix.scalar_type(), [&]<typename T>() {
    constexpr int64_t kTogether = kRowsTogether<T>;
    T* const to = matrix.mutable_data_ptr<T>();
    for (int64_t p = 0; p < panels(); ++p) {
      const T* const from = panel<T>(p);
      const int64_t width = panel_width(p);
      for (int64_t k = 0; k < rows_; ++k) {
        const T* const row = from + k / kTogether * kTogether * width + k % kTogether;
        T* const out = to + k * columns_ + p * kPanelColumns;
        for (int64_t c = 0; c < panel_columns(p); ++c) out[c] = row[c * kTogether];
      }
    }
  });
  return matrix;
}

}  // namespace pricer
