#pragma once

#include "base/command.h"

namespace pricer {

// `tune`: fine-tunes a LoRA adapter with a bins head and publishes it. See trainer/tuning_run.h.
Command AddTuneCommand(CLI::App& parent);

}  // namespace pricer
