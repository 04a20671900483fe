#pragma once

#include <ATen/ATen.h>

// Cross-entropy of fp32 rows on a GPU, both at once: writes loss [A] and its gradient with respect
// to logits, [A, N].

namespace pricer::cuda {
void CrossEntropyRows(const at::Tensor& logits, const at::Tensor& targets, const at::Tensor& loss,
                      const at::Tensor& grad_logits);
}  // namespace pricer::cuda
