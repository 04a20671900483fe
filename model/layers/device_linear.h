#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/checkpoint.h"
#include "model/ops/device_nf4.h"
#include "model/weights.h"

// Reading linears of a checkpoint onto a GPU, where they are quantized.

namespace pricer {

// A linear's weight: in NF4, or as `dense` [out, in] in the compute dtype.
struct DeviceLinear {
  std::optional<cuda::DeviceNf4> nf4;
  at::Tensor dense;

  int64_t out() const { return nf4.has_value() ? nf4->shape[0] : dense.size(0); }
};

// As LoadLinearWeight, whose errors it has, on options.device.
absl::StatusOr<DeviceLinear> LoadDeviceLinear(const Checkpoint& checkpoint,
                                              const std::string& module,
                                              const NetworkOptions& options);

// The weights below one another, decoded: [sum of out, in].
at::Tensor StackDecoded(const std::vector<DeviceLinear>& linears, const NetworkOptions& options);

inline at::TensorOptions TensorOptionsOf(const NetworkOptions& options) {
  return at::TensorOptions(options.device).dtype(options.dtype);
}

}  // namespace pricer
