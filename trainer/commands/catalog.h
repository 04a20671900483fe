#pragma once

#include "base/command.h"

namespace pricer {

// `catalog --items N --seed S --output DIR`: writes a synthetic catalogue and says how well its
// prices can be known. See catalog/synthetic.h.
Command AddCatalogCommand(CLI::App& parent);

}  // namespace pricer
