#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "model/model_config.h"
#include "model/peft_config.h"

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

  // The layers whose activations a training step need not keep: those from the lowest with LoRA on,
  // but for the last one.
  int64_t RecomputableLayers() const;
};

}  // namespace pricer
