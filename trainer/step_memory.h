#pragma once

#include <algorithm>
#include <cstdint>

#include "model/model_config.h"
#include "trainer/adapter_shape.h"
#include "trainer/op_memory.h"

// How many bytes of tensors one pass through the network needs, predicted: the ops are walked in
// the order in which network and autograd run them, and every buffer is taken and dropped where
// they take and drop theirs. Nothing is computed. No torch.

namespace pricer {

// Beside weights, adapter and optimizer.
struct StepMemory {
  // What the forward pass leaves for the backward pass, without the head.
  int64_t activation_bytes = 0;
  // The most at one time in each part of the step, all that is held then.
  int64_t forward_peak_bytes = 0;
  int64_t head_peak_bytes = 0;  // the head's and the loss's forward and backward pass
  int64_t backward_peak_bytes = 0;

  // Of the frozen weights that gradients go through: their second layout, which the first step
  // makes and which stays; in none of the above. See FrozenLinear.
  int64_t gradient_weight_bytes = 0;

  int64_t peak_bytes() const {
    return std::max({forward_peak_bytes, head_peak_bytes, backward_peak_bytes});
  }
};

// Of one micro-batch of a training step.
StepMemory PredictStepMemory(const ModelConfig& model, const AdapterShape& adapter,
                             const BatchShape& batch);

// The most bytes at one time of a forward pass and its head without gradients.
int64_t PredictForwardMemory(const ModelConfig& model, const AdapterShape& adapter,
                             const BatchShape& batch);

}  // namespace pricer
