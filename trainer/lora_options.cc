#include "trainer/lora_options.h"

#include "base/status_macros.h"
#include "trainer/option_checks.h"

namespace pricer {

absl::Status LoraOptions::ValidateLora() const {
  RETURN_IF_ERROR(CheckBounds<int64_t>("--lora-r", lora_rank, 1, 4096));
  RETURN_IF_ERROR(CheckBounds("--lora-dropout", lora_dropout, 0.0, 0.99));
  return LoraConfig(PeftTask::kSeqCls).Validate();
}

PeftConfig LoraOptions::LoraConfig(PeftTask task) const {
  PeftConfig config;
  config.task = task;
  config.r = lora_rank;
  config.alpha = static_cast<double>(2 * lora_rank);
  config.dropout = lora_dropout;
  if (target_regex.empty()) {
    config.target_modules = target_modules;
  } else {
    config.target_regex = target_regex;
  }
  config.exclude_modules = exclude_modules;
  config.layers_to_transform = lora_layers;
  config.rank_pattern = rank_pattern;
  return config;
}

}  // namespace pricer
