#pragma once

#include "base/command.h"

namespace pricer {

// `import --gguf FILE --output DIR --dtype bf16|fp32`: makes a checkpoint directory that
// transformers reads out of a GGUF file. See model/import_gguf.h.
Command AddImportCommand(CLI::App& parent);

}  // namespace pricer
