#include "model/cuda/elements.h"
#include "model/cuda/launch_check.h"
#include "model/ops/dropout_impl.h"
#include "model/ops/dropout_kernel.h"

namespace pricer::cuda {

void FillDropoutMask(const DropoutRowKey& key, const DropoutRows& rows, int64_t channels,
                     const at::Tensor& mask) {
  const at::Tensor row = rows.row.contiguous();
  const at::Tensor position = rows.position.contiguous();
  const DropoutMaskParams params = {.rows = row.size(0),
                                    .channels = channels,
                                    .key = {key.key[0], key.key[1]},
                                    .step = key.counter[0],
                                    .threshold = key.threshold,
                                    .row = Read<int64_t>(row),
                                    .position = Read<int64_t>(position),
                                    .mask = Write<uint32_t>(mask)};
  CheckLaunch(LaunchDropoutMask(params, CurrentStream()), "DropoutMask");
}

}  // namespace pricer::cuda
