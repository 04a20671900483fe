#pragma once

#include "model/model_config.h"
#include "model/ops/rotary.h"

namespace pricer {

// Angles position * frequency in fp32, as transformers computes them; llama3 stretching as its
// modeling_rope_utils.py. For MaxSequenceTokens() positions.
RotaryTable MakeRotaryTable(const ModelConfig& config);

}  // namespace pricer
