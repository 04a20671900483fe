#include "model/ops/rotary_impl.h"
#include "model/ops/rows.h"

namespace pricer::cpu {
namespace {

template <typename T>
void RotateRows(const at::Tensor& rows, const at::Tensor& positions, const RotaryTable& table,
                int64_t heads, bool inverse) {
  const int64_t half = table.cos.size(1);
  const int64_t stride = rows.stride(0);
  auto* data = AsRow(rows.mutable_data_ptr<T>());
  const int64_t* position = positions.const_data_ptr<int64_t>();
  const float* cos = table.cos.const_data_ptr<float>();
  const float* sin = table.sin.const_data_ptr<float>();
  ParallelOverRows(rows.size(0), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t at = position[t] * half;
      for (int64_t head = 0; head < heads; ++head) {
        auto* values = data + t * stride + head * 2 * half;
        if (inverse) {
          row::RotateBack(values, cos + at, sin + at, half);
        } else {
          row::Rotate(values, cos + at, sin + at, half);
        }
      }
    }
  });
}

}  // namespace

void RotateInPlace(const at::Tensor& rows, const at::Tensor& positions, const RotaryTable& table,
                   int64_t heads, bool inverse) {
  DispatchComputeType(rows.scalar_type(),
                      [&]<typename T>() { RotateRows<T>(rows, positions, table, heads, inverse); });
}

}  // namespace pricer::cpu
