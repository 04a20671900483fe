#pragma once

#include "client/commands/command.h"

namespace pricer {

// `pricer batch`: prices a file of items.
Command AddBatchCommand(CLI::App& parent);

}  // namespace pricer
