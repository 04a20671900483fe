#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cstdint>
#include <utility>
#include <vector>

// Rows of fp32 or bf16 tensors as fp32 for the row kernels.

namespace pricer {

// Calls `function.template operator()<T>()` with the C++ type of a compute dtype. REQUIRES: fp32 or
// bf16.
template <typename Function>
void DispatchComputeType(at::ScalarType dtype, Function&& function) {
  if (dtype == at::kFloat) {
    std::forward<Function>(function).template operator()<float>();
  } else {
    TORCH_CHECK(dtype == at::kBFloat16, "expected fp32 or bf16, got ", dtype);
    std::forward<Function>(function).template operator()<at::BFloat16>();
  }
}

// Calls body(begin, end) for ranges of rows on ATen's intra-op threads.
template <typename Body>
void ParallelOverRows(int64_t rows, const Body& body) {
  constexpr int64_t kRowsPerTask = 16;
  at::parallel_for(0, rows, kRowsPerTask, body);
}

// fp32 values of a row: the row itself, or a widened copy in `scratch`.
inline const float* ReadRow(const float* row, int64_t, std::vector<float>&) { return row; }
inline const float* ReadRow(const at::BFloat16* row, int64_t n, std::vector<float>& scratch) {
  scratch.assign(row, row + n);
  return scratch.data();
}

// Where to compute a row: in place, or in `scratch`, from which StoreRow rounds.
inline float* RowToWrite(float* row, int64_t, std::vector<float>&) { return row; }
inline float* RowToWrite(at::BFloat16*, int64_t n, std::vector<float>& scratch) {
  scratch.resize(n);
  return scratch.data();
}
inline void StoreRow(const float*, float*, int64_t) {}
inline void StoreRow(const float* values, at::BFloat16* row, int64_t n) {
  for (int64_t i = 0; i < n; ++i) row[i] = values[i];
}

}  // namespace pricer
