#include "model/ops/dropout.h"

#include <cmath>

#include "model/ops/dropout_bits.h"
#include "model/ops/rows.h"

namespace pricer {
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

}  // namespace pricer
