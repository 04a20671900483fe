#pragma once

#include "base/command.h"

namespace pricer {

// `quantize --base DIR --output DIR`: makes a checkpoint directory in bitsandbytes' NF4 form. See
// model/quantize_checkpoint.h.
Command AddQuantizeCommand(CLI::App& parent);

}  // namespace pricer
