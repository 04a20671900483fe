#include "model/ops/dropout_impl.h"
#include "model/ops/rows.h"

namespace pricer::cpu {

void FillDropoutMask(const DropoutRowKey& key, const DropoutRows& rows, int64_t /*channels*/,
                     const at::Tensor& mask) {
  const int64_t words = mask.size(1);
  const auto* const row = rows.row.const_data_ptr<int64_t>();
  const auto* const position = rows.position.const_data_ptr<int64_t>();
  auto* const bits = reinterpret_cast<uint32_t*>(mask.mutable_data_ptr<int32_t>());
  ParallelOverRows(mask.size(0), [&](int64_t begin, int64_t end) {
    DropoutRowKey row_key = key;
    for (int64_t t = begin; t < end; ++t) {
      row_key.counter[1] = static_cast<uint32_t>(row[t]);
      row_key.counter[2] = static_cast<uint32_t>(position[t]);
      DropoutBits(row_key, {bits + t * words, static_cast<size_t>(words)});
    }
  });
}

}  // namespace pricer::cpu
