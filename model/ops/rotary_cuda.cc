#include "model/cuda/elements.h"
#include "model/cuda/launch_check.h"
#include "model/ops/rotary_impl.h"
#include "model/ops/rotary_kernel.h"

namespace pricer::cuda {

void RotateInPlace(const at::Tensor& rows, const at::Tensor& positions, const RotaryTable& table,
                   int64_t heads, bool inverse) {
  DispatchKernelType(rows.scalar_type(), [&]<typename T>() {
    const RotaryParams<T> params = {.rows = rows.size(0),
                                    .heads = heads,
                                    .half = table.cos.size(1),
                                    .data = Write<T>(rows),
                                    .stride = rows.stride(0),
                                    .positions = Read<int64_t>(positions),
                                    .cos = Read<float>(table.cos),
                                    .sin = Read<float>(table.sin),
                                    .inverse = inverse};
    CheckLaunch(LaunchRotary(params, CurrentStream()), "RotateInPlace");
  });
}

}  // namespace pricer::cuda
