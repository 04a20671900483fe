#pragma once

#include "base/command.h"

namespace pricer {

// `inspect`: what a base and a data set will be like to tune. See trainer/inspection.h.
Command AddInspectCommand(CLI::App& parent);

}  // namespace pricer
