#include "model/cuda/elements.h"
#include "model/cuda/launch_check.h"
#include "model/ops/cross_entropy_impl.h"
#include "model/ops/cross_entropy_kernel.h"

namespace pricer::cuda {

void CrossEntropyRows(const at::Tensor& logits, const at::Tensor& targets, const at::Tensor& loss,
                      const at::Tensor& grad_logits) {
  CrossEntropyParams params = {.rows = logits.size(0),
                               .classes = logits.size(1),
                               .logits = Read<float>(logits),
                               .loss = Write<float>(loss),
                               .grad_logits = Write<float>(grad_logits)};
  if (targets.dim() == 2) {
    params.probabilities = Read<float>(targets);
  } else {
    params.labels = Read<int64_t>(targets);
  }
  CheckLaunch(LaunchCrossEntropy(params, CurrentStream()), "CrossEntropySum");
}

}  // namespace pricer::cuda
