#include "model/ops/dropout.h"

#include <cmath>

#include "model/cuda/device.h"
#include "model/ops/dropout_impl.h"

namespace pricer {

DropoutRowKey DropoutKeyOf(const Dropout& dropout) {
  return {.key = {static_cast<uint32_t>(dropout.seed ^ dropout.seed >> 32),
                  static_cast<uint32_t>(dropout.module)},
          .counter = {static_cast<uint32_t>(dropout.step), 0, 0},
          .threshold = static_cast<uint32_t>(std::lround(dropout.probability * 0x1p24))};
}

at::Tensor DropoutMask(const Dropout& dropout, const DropoutRows& rows, int64_t channels) {
  const int64_t words = (channels + 31) / 32;
  at::Tensor mask = at::empty({rows.row.size(0), words}, rows.row.options().dtype(at::kInt));
  const DropoutRowKey key = DropoutKeyOf(dropout);
  if (cuda::Handles(mask)) {
    cuda::FillDropoutMask(key, rows, channels, mask);
  } else {
    cpu::FillDropoutMask(key, rows, channels, mask);
  }
  return mask;
}

}  // namespace pricer
