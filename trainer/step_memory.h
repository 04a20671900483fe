#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "model/model_config.h"
#include "model/peft_config.h"

// How many bytes of tensors one pass through the network needs, predicted: the ops are walked in
// the order in which network and autograd run them, and every buffer is taken and dropped where
// they take and drop theirs. Nothing is computed. No torch.

namespace pricer {

// What is tuned, or served.
struct AdapterShape {
  // [layer_count][kProjectionCount] of the LoRA matrices, 0 = none.
  std::vector<std::vector<int64_t>> ranks;
  double dropout = 0;
  int64_t bins = 0;         // of the price head; 0 = the base's own head over tokens
  bool cosine_head = true;  // in which the bins head is trained; see head_basis.h

  // What MakeAdapter would make of `config`, with its errors.
  static absl::StatusOr<AdapterShape> Of(const PeftConfig& config, const ModelConfig& model,
                                         int64_t bins);

  // Values, all fp32: of the LoRA matrices, of the head's rows as they are published, and of the
  // head as it is trained.
  int64_t LoraValues(const ModelConfig& model) const;
  int64_t ScoreValues(const ModelConfig& model) const;
  int64_t HeadValues(const ModelConfig& model) const;
};

// One packed batch of sequences that are equally long but for one token.
struct BatchShape {
  int64_t tokens = 1;         // T
  int64_t sequences = 1;      // B, 1 to T
  int64_t answers = 1;        // A, a multiple of B
  int64_t element_bytes = 4;  // of the compute dtype
  int threads = 1;            // each has a scratch of its own in attention
};

// Beside weights, adapter and optimizer.
struct StepMemory {
  // What the forward pass leaves for the backward pass, without the head.
  int64_t activation_bytes = 0;
  // The most at one time in each part of the step, all that is held then.
  int64_t forward_peak_bytes = 0;
  int64_t head_peak_bytes = 0;  // the head's and the loss's forward and backward pass
  int64_t backward_peak_bytes = 0;

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
