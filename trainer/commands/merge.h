#pragma once

#include "base/command.h"

namespace pricer {

// `merge --base DIR --adapter DIR --output DIR`: an adapter and its base as one plain checkpoint.
// See trainer/merge.h.
Command AddMergeCommand(CLI::App& parent);

}  // namespace pricer
