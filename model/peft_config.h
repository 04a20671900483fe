#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/model_config.h"

namespace pricer {

enum class PeftTask { kCausalLm, kSeqCls };

// In place of a list of target modules: every linear layer except the output head.
inline constexpr absl::string_view kAllLinear = "all-linear";

// What adapter_config.json says, as far as it changes the maths. Options that are not listed are
// refused when they are on. https://github.com/huggingface/peft, src/peft/tuners/lora/config.py
struct PeftConfig {
  PeftTask task = PeftTask::kSeqCls;
  int64_t r = 8;
  double alpha = 8;
  double dropout = 0;
  bool use_rslora = false;
  // Either a list of module names (matched whole or as ".name" suffix, or {kAllLinear}) or one
  // regular expression over the whole path, in Python's syntax but for what is refused here: named
  // groups, flags such as (?i), look-behind, conditions, and whatever ECMAScript reads differently.
  std::vector<std::string> target_modules;
  std::optional<std::string> target_regex;
  // Matched as targets are; they win.
  std::vector<std::string> exclude_modules;
  std::optional<std::string> exclude_regex;
  // Not empty: of the modules matched as suffix, only those of these layers. `layers_pattern` says,
  // as regular expressions, what stands before a layer's number; empty = anything.
  std::vector<int64_t> layers_to_transform;
  std::vector<std::string> layers_pattern;
  // Regular expression -> value for modules whose path it matches whole or after a dot. Two that
  // match one module are refused, because PEFT takes the first and saves them in another order.
  std::map<std::string, int64_t> rank_pattern;
  std::map<std::string, double> alpha_pattern;
  std::string base_model_name;

  // Which linears of a decoder carry LoRA, and with what rank and scale:
  // [layer_count][kProjectionCount], rank 0 = none.
  struct Target {
    int64_t rank = 0;
    double scale = 0;
  };
  // Matches as PEFT does. InvalidArgument: nothing is matched, two patterns match one module, a
  // regular expression is not understood. Unimplemented: a target is no linear layer of the decoder
  // (embed_tokens, lm_head, ...). Both name field and module.
  absl::StatusOr<std::vector<std::vector<Target>>> Targets(const ModelConfig& config) const;

  // r and ranks from 1 to 65536, alphas finite, dropout in [0, 1], targets present; InvalidArgument
  // names the field.
  absl::Status Validate() const;

  // InvalidArgument names file and field; Unimplemented names an option that is not supported
  // (use_dora, lora_bias, bias other than none, modules_to_save beyond the head, another peft_type,
  // ...), known or not.
  static absl::StatusOr<PeftConfig> FromJson(absl::string_view json, absl::string_view source);
  // As PEFT writes it: sorted keys, two-space indent.
  std::string ToJson() const;
};

}  // namespace pricer
