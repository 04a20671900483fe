#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cstdint>
#include <utility>

#include "model/ops/row_kernels.h"

// Rows of fp32 or bf16 tensors for the row kernels.

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

// A row of a tensor as the row kernels take it.
inline const float* AsRow(const float* row) { return row; }
inline float* AsRow(float* row) { return row; }
inline const row::Bf16* AsRow(const at::BFloat16* row) {
  return reinterpret_cast<const row::Bf16*>(row);
}
inline row::Bf16* AsRow(at::BFloat16* row) { return reinterpret_cast<row::Bf16*>(row); }

}  // namespace pricer
