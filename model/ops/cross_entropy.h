#pragma once

#include <ATen/ATen.h>

namespace pricer {

// Sum over rows of the cross-entropy of `logits` [A, N] against `targets`, [A, N] probabilities
// fp32 or [A] classes int64: a scalar fp32. A sum, because the mean is over the targets of a whole
// step and not of a micro-batch. Differentiable in logits.
at::Tensor CrossEntropySum(const at::Tensor& logits, const at::Tensor& targets);

}  // namespace pricer
