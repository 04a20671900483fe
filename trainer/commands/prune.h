#pragma once

#include "base/command.h"

namespace pricer {

// `prune --adapters DIR --keep N`: removes old versions and runs. See trainer/prune.h.
Command AddPruneCommand(CLI::App& parent);

}  // namespace pricer
