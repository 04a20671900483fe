#include "model/layers/linear.h"

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
  group.out_begin_ = {0};
  std::vector<at::Tensor> weights;
  std::vector<at::Tensor> biases;
  for (Projection projection : group.projections_) {
    const std::string module = ModulePath(layer, projection);
    ASSIGN_OR_RETURN(at::Tensor weight, LoadLinearWeight(checkpoint, module, options));
    group.out_begin_.push_back(group.out_begin_.back() + weight.size(0));
    weights.push_back(std::move(weight));
    if (checkpoint.has_tensor(module + ".bias")) {
      biases.push_back(ToTensor(checkpoint.tensor(module + ".bias")).to(options.dtype));
    }
  }
  group.weight_ = weights.size() == 1 ? weights[0] : at::cat(weights);
  if (!biases.empty()) group.bias_ = at::cat(biases);
  return group;
}

at::Tensor LinearGroup::Forward(const at::Tensor& x, const AdapterRows& rows, int first,
                                int count) const {
  const int64_t begin = out_begin_[first];
  const int64_t size = out_begin_[first + count] - begin;
  std::vector<LoraSegment> lora;
  for (const AdapterSegment& segment : rows.segments) {
    LoraSegment mapped{segment.begin, segment.end, {}};
    for (int p = first; p < first + count; ++p) {
      const LoraWeights& weights = segment.adapter->lora(layer_, projections_[p]);
      if (!weights.defined()) continue;
      Dropout dropout = rows.dropout;
      dropout.module = layer_ * kProjectionCount + static_cast<int>(projections_[p]);
      mapped.parts.push_back({.out_begin = out_begin_[p] - begin,
                              .out_size = out_begin_[p + 1] - out_begin_[p],
                              .a = weights.a,
                              .b = weights.b,
                              .scale = weights.scale,
                              .dropout = dropout});
    }
    if (!mapped.parts.empty()) lora.push_back(std::move(mapped));
  }
  return LoraLinear(x, weight_.narrow(0, begin, size),
                    bias_.defined() ? bias_.narrow(0, begin, size) : at::Tensor(), lora, rows.rows);
}

int64_t LinearGroup::bytes() const {
  return static_cast<int64_t>(weight_.nbytes() + (bias_.defined() ? bias_.nbytes() : 0));
}

}  // namespace pricer
