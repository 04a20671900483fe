#pragma once

#include "base/command.h"

namespace pricer {

// `pricer batch`: prices a file of items.
Command AddBatchCommand(CLI::App& parent);

}  // namespace pricer
