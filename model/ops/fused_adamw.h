#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/types/span.h"

namespace pricer::cuda {

// AdamW on a GPU over all tensors of an adapter in one launch, as trainer/optimizer.h defines it.
// Nothing in it waits for the device. One thread.
class FusedAdamW {
 public:
  // fp32, contiguous, of one shape; updated in place as long as this lives.
  struct Tensors {
    at::Tensor parameter, gradient, first_moment, second_moment;
    int group = 0;  // whose learning rate it has; 0 to 3
  };
  static std::unique_ptr<FusedAdamW> Create(std::vector<Tensors> tensors);
  virtual ~FusedAdamW() = default;

  // Global L2 norm of all gradients, [1] fp32. The next Step scales gradients so that it is at most
  // `max_norm`; 0 = it does not.
  virtual at::Tensor GradientNorm(double max_norm) = 0;

  struct StepOptions {
    absl::Span<const double> learning_rates;  // of the groups
    double beta1 = 0;
    double beta2 = 0;
    double epsilon = 0;
    double weight_decay = 0;
    int64_t step = 1;  // counts from 1
  };
  // Updates nothing where the norm was not finite. REQUIRES: GradientNorm was called behind the
  // gradients.
  virtual void Step(const StepOptions& options) = 0;
};

}  // namespace pricer::cuda
