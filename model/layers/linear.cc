#include "model/layers/linear.h"

#include <memory>
#include <utility>

#include "base/status_macros.h"
#include "model/ops/lora_linear.h"

namespace pricer {

absl::StatusOr<LinearGroup> LinearGroup::Load(const Checkpoint& checkpoint,
                                              const NetworkOptions& options, int64_t layer,
                                              std::vector<Projection> projections) {
  LinearGroup group;
  group.layer_ = layer;
  group.projections_ = std::move(projections);
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

at::Tensor LinearGroup::Forward(const at::Tensor& x, const AdapterRows& rows, int first,
                                int count) const {
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
  return LoraLinear(x, FrozenLinears(begin, begin + count), lora, rows.rows);
}

int64_t LinearGroup::bytes() const {
  int64_t bytes = 0;
  for (const auto& linear : linears_) bytes += linear->bytes();
  return bytes;
}

}  // namespace pricer
