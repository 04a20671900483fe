#include "model/ops/rotary.h"

#include "model/cuda/device.h"
#include "model/ops/rotary_impl.h"

namespace pricer {

void RotateInPlace(const at::Tensor& rows, const at::Tensor& positions, const RotaryTable& table,
                   int64_t heads, bool inverse) {
  TORCH_CHECK(rows.stride(1) == 1 && rows.size(1) >= heads * 2 * table.cos.size(1),
              "rows of shape ", rows.sizes(), " do not hold ", heads, " heads");
  const auto rotate = cuda::Handles(rows) ? cuda::RotateInPlace : cpu::RotateInPlace;
  rotate(rows, positions, table, heads, inverse);
}

}  // namespace pricer
