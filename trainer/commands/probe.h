#pragma once

#include "base/command.h"

namespace pricer {

// `probe`: next-token log-probabilities, or bin logits, of raw prompts. See trainer/probe.h.
Command AddProbeCommand(CLI::App& parent);

}  // namespace pricer
