#include "model/layers/linear.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "base/status_macros.h"
#include "model/cuda/device.h"

namespace pricer {

absl::StatusOr<LinearGroup> LinearGroup::Load(const Checkpoint& checkpoint,
                                              const NetworkOptions& options, int64_t layer,
                                              std::vector<Projection> projections,
                                              WeightWindow* window) {
  LinearGroup group;
  group.layer_ = layer;
  group.projections_ = std::move(projections);
  if (cuda::RunsOn(options.device)) {
    RETURN_IF_ERROR(group.LoadOnDevice(checkpoint, options, window));
    return group;
  }
  for (Projection projection : group.projections_) {
    const std::string module = ModulePath(layer, projection);
    ASSIGN_OR_RETURN(const at::Tensor weight, LoadLinearWeight(checkpoint, module, options));
    at::Tensor bias;
    if (checkpoint.has_tensor(module + ".bias")) {
      bias = ToTensor(checkpoint.tensor(module + ".bias")).to(options.dtype);
    }
    group.linears_.push_back(std::make_shared<const FrozenLinear>(weight, bias));
  }
  return group;
}

absl::Status LinearGroup::LoadOnDevice(const Checkpoint& checkpoint, const NetworkOptions& options,
                                       WeightWindow* window) {
  std::vector<DeviceLinear> loaded;
  std::vector<at::Tensor> biases;
  bool has_bias = false;
  for (Projection projection : projections_) {
    const std::string module = ModulePath(layer_, projection);
    ASSIGN_OR_RETURN(DeviceLinear linear, LoadDeviceLinear(checkpoint, module, options));
    if (checkpoint.has_tensor(module + ".bias")) {
      has_bias = true;
      const TensorView& bias = checkpoint.tensor(module + ".bias");
      biases.push_back(ToTensor(bias, options.device).to(options.dtype));
    } else {
      biases.push_back(at::zeros({linear.out()}, TensorOptionsOf(options)));
    }
    loaded.push_back(std::move(linear));
  }
  StackOnDevice(std::move(loaded), has_bias ? at::cat(biases) : at::Tensor(), options, window);
  return absl::OkStatus();
}

absl::StatusOr<LinearGroup> LinearGroup::Random(const ModelConfig& config,
                                                const NetworkOptions& options, int64_t layer,
                                                std::vector<Projection> projections,
                                                WeightWindow* window) {
  constexpr double kDeviation = 0.02;  // as transformers initializes a Llama
  LinearGroup group;
  group.layer_ = layer;
  group.projections_ = std::move(projections);
  std::vector<DeviceLinear> drawn;
  for (Projection projection : group.projections_) {
    const LinearShape shape = ProjectionShape(config, projection);
    DeviceLinear linear;
    linear.dense = at::randn({shape.out, shape.in}, TensorOptionsOf(options)) * kDeviation;
    if (options.weights == WeightsKind::kNf4) {
      ASSIGN_OR_RETURN(linear.nf4, cuda::QuantizeNf4(linear.dense));
      linear.dense = at::Tensor();
    }
    drawn.push_back(std::move(linear));
  }
  group.StackOnDevice(std::move(drawn), /*bias=*/{}, options, window);
  return group;
}

void LinearGroup::StackOnDevice(std::vector<DeviceLinear> linears, const at::Tensor& bias,
                                const NetworkOptions& options, WeightWindow* window) {
  std::vector<int64_t> sizes;
  for (const DeviceLinear& linear : linears) sizes.push_back(linear.out());
  const bool all_nf4 = std::all_of(linears.begin(), linears.end(), [](const DeviceLinear& linear) {
    return linear.nf4.has_value();
  });
  std::shared_ptr<const DeviceWeight> weight;
  if (window != nullptr && all_nf4) {
    std::vector<cuda::DeviceNf4> parts;
    for (DeviceLinear& linear : linears) parts.push_back(*std::move(linear.nf4));
    weight = window->Add(layer_, std::move(parts), bias);
  } else {
    weight = std::make_shared<const ResidentWeight>(StackDecoded(linears, options), bias);
  }
  int64_t begin = 0;
  for (int64_t size : sizes) {
    linears_.push_back(std::make_shared<const FrozenLinear>(weight, begin, size));
    begin += size;
  }
}

at::Tensor LinearGroup::Forward(const at::Tensor& x, const AdapterRows& rows, int first, int count,
                                const InputSource& source) const {
  std::vector<LoraSegment> lora;
  for (const AdapterSegment& segment : rows.segments) {
    LoraSegment mapped{segment.begin, segment.end, {}};
    for (int p = first; p < first + count; ++p) {
      const LoraWeights& weights = segment.adapter->lora(layer_, projections_[p]);
      if (!weights.defined()) continue;
      Dropout dropout = rows.dropout;
      dropout.module = layer_ * kProjectionCount + static_cast<int>(projections_[p]);
      mapped.parts.push_back({.linear = p - first,
                              .a = weights.a,
                              .b = weights.b,
                              .scale = weights.scale,
                              .dropout = dropout});
    }
    if (!mapped.parts.empty()) lora.push_back(std::move(mapped));
  }
  const auto begin = linears_.begin() + first;
  return LoraLinear(x, FrozenLinears(begin, begin + count), lora, rows.rows, source);
}

int64_t LinearGroup::bytes() const {
  const DeviceWeight* const stacked = linears_.front()->device_weight();
  if (stacked != nullptr) return stacked->bytes();
  int64_t bytes = 0;
  for (const auto& linear : linears_) bytes += linear->bytes();
  return bytes;
}

}  // namespace pricer
