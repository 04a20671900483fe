#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "model/peft_config.h"

namespace pricer {

// Which linear layers are tuned and how: what decides an adapter's size, and a step's memory.
// PeftConfig says what each field means.
struct LoraOptions {
  int64_t lora_rank = 16;
  double lora_dropout = 0;
  // Module names ("q_proj") or the one word "all-linear"; or a regular expression over the whole
  // module path instead.
  std::vector<std::string> target_modules = {"all-linear"};
  std::string target_regex;
  std::vector<std::string> exclude_modules;
  std::vector<int64_t> lora_layers;  // empty = all
  std::map<std::string, int64_t> rank_pattern;

  // Bounds; InvalidArgument names the option.
  absl::Status ValidateLora() const;
  // With alpha = 2 r.
  PeftConfig LoraConfig(PeftTask task) const;
};

}  // namespace pricer
