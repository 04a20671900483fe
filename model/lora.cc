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

AdapterWeights CopyTo(const AdapterWeights& weights, at::Device device, at::ScalarType lora_dtype) {
  const auto copy = [device](const at::Tensor& tensor, at::ScalarType dtype) {
    return tensor.detach().to(device, dtype, /*non_blocking=*/false, /*copy=*/true);
  };
  AdapterWeights out = weights;
  for (std::vector<LoraWeights>& layer : out.layers) {
    for (LoraWeights& linear : layer) {
      if (!linear.defined()) continue;
      linear.a = copy(linear.a, lora_dtype);
      linear.b = copy(linear.b, lora_dtype);
    }
  }
  if (out.score.defined()) out.score = copy(out.score, out.score.scalar_type());
  return out;
}

}  // namespace pricer
