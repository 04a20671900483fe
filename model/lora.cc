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

}  // namespace pricer
