#include "model/ops/dropout.h"

#include <cmath>
#include <vector>

#include "model/ops/dropout_bits.h"
#include "model/ops/row_kernels.h"
#include "model/ops/rows.h"

namespace pricer {
namespace {

float KeptScale(double probability) { return static_cast<float>(1.0 / (1.0 - probability)); }

const uint32_t* BitsOf(const at::Tensor& mask, int64_t row) {
  return reinterpret_cast<const uint32_t*>(mask.const_data_ptr<int32_t>()) + row * mask.size(1);
}

template <typename T>
void ApplyRows(const at::Tensor& x, const at::Tensor& mask, float scale, at::Tensor& out) {
  const int64_t n = x.size(1);
  const T* const x_data = x.const_data_ptr<T>();
  T* const out_data = out.mutable_data_ptr<T>();
  ParallelOverRows(x.size(0), [&](int64_t begin, int64_t end) {
    std::vector<float> scratch_in, scratch_out;
    for (int64_t t = begin; t < end; ++t) {
      float* const row = RowToWrite(out_data + t * n, n, scratch_out);
      row::MaskedScale(ReadRow(x_data + t * x.stride(0), n, scratch_in), BitsOf(mask, t), scale,
                       row, n);
      StoreRow(row, out_data + t * n, n);
    }
  });
}

template <typename T>
void AddRows(const at::Tensor& grad, const at::Tensor& mask, float scale, const at::Tensor& sum) {
  const int64_t n = grad.size(1);
  const T* const grad_data = grad.const_data_ptr<T>();
  T* const sum_data = sum.mutable_data_ptr<T>();
  ParallelOverRows(grad.size(0), [&](int64_t begin, int64_t end) {
    std::vector<float> scratch_in, scratch_sum;
    for (int64_t t = begin; t < end; ++t) {
      T* const sum_row = sum_data + t * sum.stride(0);
      // fp32 rows are added to in place, others in a widened copy.
      auto* const row = const_cast<float*>(ReadRow(sum_row, n, scratch_sum));
      row::AddMaskedScale(ReadRow(grad_data + t * grad.stride(0), n, scratch_in), BitsOf(mask, t),
                          scale, row, n);
      StoreRow(row, sum_row, n);
    }
  });
}

}  // namespace

at::Tensor DropoutMask(const Dropout& dropout, const DropoutRows& rows, int64_t channels) {
  const int64_t words = (channels + 31) / 32;
  at::Tensor mask = at::empty({rows.row.size(0), words}, at::kInt);
  const auto* const row = rows.row.const_data_ptr<int64_t>();
  const auto* const position = rows.position.const_data_ptr<int64_t>();
  auto* const bits = reinterpret_cast<uint32_t*>(mask.mutable_data_ptr<int32_t>());
  DropoutRowKey key;
  key.key = {static_cast<uint32_t>(dropout.seed ^ dropout.seed >> 32),
             static_cast<uint32_t>(dropout.module)};
  key.threshold = static_cast<uint32_t>(std::lround(dropout.probability * 0x1p24));
  ParallelOverRows(mask.size(0), [&](int64_t begin, int64_t end) {
    DropoutRowKey row_key = key;
    for (int64_t t = begin; t < end; ++t) {
      row_key.counter = {static_cast<uint32_t>(dropout.step), static_cast<uint32_t>(row[t]),
                         static_cast<uint32_t>(position[t])};
      DropoutBits(row_key, {bits + t * words, static_cast<size_t>(words)});
    }
  });
  return mask;
}

at::Tensor ApplyDropout(const at::Tensor& x, const at::Tensor& mask, double probability) {
  at::Tensor out = at::empty(x.sizes(), x.options());
  DispatchComputeType(x.scalar_type(),
                      [&]<typename T>() { ApplyRows<T>(x, mask, KeptScale(probability), out); });
  return out;
}

void AddDropout(const at::Tensor& grad, const at::Tensor& mask, double probability,
                const at::Tensor& sum) {
  DispatchComputeType(grad.scalar_type(),
                      [&]<typename T>() { AddRows<T>(grad, mask, KeptScale(probability), sum); });
}

}  // namespace pricer
