#include "model/layers/device_linear.h"

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace pricer {

absl::StatusOr<DeviceLinear> LoadDeviceLinear(const Checkpoint& checkpoint,
                                              const std::string& module,
                                              const NetworkOptions& options) {
  if (checkpoint.IsNf4(module)) {
    ASSIGN_OR_RETURN(const Nf4Tensor stored, checkpoint.ReadNf4(module));
    return DeviceLinear{.nf4 = cuda::UploadNf4(stored, options.device), .dense = {}};
  }
  const std::string name = module + ".weight";
  const at::Tensor values = ToTensor(checkpoint.tensor(name), options.device);
  const bool quantizes = options.weights == WeightsKind::kNf4 && !checkpoint.declares_nf4();
  if (!quantizes) {
    const bool rounds = options.weights == WeightsKind::kBf16;
    const at::Tensor rounded = rounds ? values.to(at::kBFloat16) : values;
    return DeviceLinear{.nf4 = {}, .dense = rounded.to(options.dtype)};
  }
  absl::StatusOr<cuda::DeviceNf4> quantized = cuda::QuantizeNf4(values);
  if (!quantized.ok()) {
    return absl::Status(quantized.status().code(),
                        absl::StrCat(checkpoint.FileOf(name), ": tensor ", name, ": ",
                                     quantized.status().message()));
  }
  return DeviceLinear{.nf4 = *std::move(quantized), .dense = {}};
}

at::Tensor StackDecoded(const std::vector<DeviceLinear>& linears, const NetworkOptions& options) {
  int64_t out = 0;
  for (const DeviceLinear& linear : linears) out += linear.out();
  const int64_t in = linears.front().nf4.has_value() ? linears.front().nf4->shape[1]
                                                     : linears.front().dense.size(1);
  at::Tensor stacked = at::empty({out, in}, TensorOptionsOf(options));
  int64_t begin = 0;
  for (const DeviceLinear& linear : linears) {
    const at::Tensor rows = stacked.narrow(0, begin, linear.out());
    if (linear.nf4.has_value()) {
      cuda::DecodeNf4(*linear.nf4, rows);
    } else {
      rows.copy_(linear.dense);
    }
    begin += linear.out();
  }
  return stacked;
}

}  // namespace pricer
