#include "model/ops/cross_entropy.h"

#include <torch/csrc/autograd/custom_function.h>

#include "model/cuda/device.h"
#include "model/ops/cross_entropy_impl.h"

namespace pricer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// On a GPU, where one pass makes the gradient with the loss.
struct CrossEntropyFunction : torch::autograd::Function<CrossEntropyFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& logits,
                            const at::Tensor& targets) {
    const at::Tensor loss = at::empty({logits.size(0)}, logits.options());
    const at::Tensor grad = at::empty_like(logits);
    cuda::CrossEntropyRows(logits, targets, loss, grad);
    context->save_for_backward({grad});
    return loss.sum();
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    return {context->get_saved_variables()[0] * grads[0], at::Tensor()};
  }
};

}  // namespace

at::Tensor CrossEntropySum(const at::Tensor& logits, const at::Tensor& targets) {
  if (cuda::Handles(logits)) {
    return CrossEntropyFunction::apply(logits.to(at::kFloat).contiguous(), targets.contiguous());
  }
  const at::Tensor log_probabilities = at::log_softmax(logits.to(at::kFloat), /*dim=*/-1);
  if (targets.dim() == 2) return -(targets * log_probabilities).sum();
  return -log_probabilities.gather(1, targets.unsqueeze(1)).sum();
}

}  // namespace pricer
