#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <vector>

#include "model/ops/matrix_product.h"

// How the linear layers' work is cut into tasks for ATen's intra-op threads.

namespace pricer {

// Rows of a task: their operands stay in a core's cache.
inline constexpr int64_t kBlockRows = 64;

// How many threads so many tasks take.
inline int64_t TaskThreads(int64_t tasks) {
  return std::min<int64_t>(tasks, at::get_num_threads());
}

// Calls body(next) at most TaskThreads(tasks) times, on as many threads, each of which takes one
// task after the other from `next` until that is `tasks` or more: a thread that is slower gets
// fewer.
template <typename Body>
void ParallelOverTasks(int64_t tasks, const Body& body) {
  std::atomic<int64_t> next = 0;
  at::parallel_for(0, TaskThreads(tasks), 1, [&](int64_t /*begin*/, int64_t /*end*/) {
    const ProductScope products;
    body(next);
  });
}

// The left operand of a product: `rows` rows, a multiple of kProductTile.
template <typename T>
struct LeftRows {
  const T* data = nullptr;
  int64_t stride = 0;
  int64_t rows = 0;
  int64_t k = 0;  // a multiple of kRowsTogether<T>
};

// Rows [begin, begin + count) and columns [column, column + columns) of a contiguous matrix. In
// place where more rows can be read behind them, else copied into `scratch`, with zeros to fill up.
template <typename T>
LeftRows<T> ReadRows(const at::Tensor& matrix, int64_t begin, int64_t count, int64_t column,
                     int64_t columns, std::vector<T>& scratch) {
  const int64_t stride = matrix.size(1);
  const int64_t rows = RoundUp(kProductTile, count);
  const int64_t k = RoundUp(kRowsTogether<T>, columns);
  const T* const data = matrix.const_data_ptr<T>() + begin * stride + column;
  if (begin + rows <= matrix.size(0) && k == columns) return {data, stride, rows, k};
  scratch.assign(rows * k, T(0));
  for (int64_t t = 0; t < count; ++t) std::copy_n(data + t * stride, columns, &scratch[t * k]);
  return {scratch.data(), k, rows, k};
}

}  // namespace pricer
