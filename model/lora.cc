#include "model/lora.h"

namespace pricer {

int64_t AdapterWeights::bytes() const {
  int64_t bytes = score.defined() ? static_cast<int64_t>(score.nbytes()) : 0;
  for (const std::vector<LoraWeights>& layer : layers) {
    for (const LoraWeights& lora : layer) {
      if (lora.defined()) bytes += static_cast<int64_t>(lora.a.nbytes() + lora.b.nbytes());
    }
  }
  return bytes;
}

AdapterWeights CopyTo(const AdapterWeights& weights, at::Device device) {
  const auto copy = [device](const at::Tensor& tensor) {
    return tensor.detach().to(device, tensor.scalar_type(), /*non_blocking=*/false, /*copy=*/true);
  };
  AdapterWeights out = weights;
  for (std::vector<LoraWeights>& layer : out.layers) {
    for (LoraWeights& linear : layer) {
      if (!linear.defined()) continue;
      linear.a = copy(linear.a);
      linear.b = copy(linear.b);
    }
  }
  if (out.score.defined()) out.score = copy(out.score);
  return out;
}

}  // namespace pricer
