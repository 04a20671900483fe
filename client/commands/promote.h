#pragma once

#include "base/command.h"

namespace pricer {

// `pricer adapters promote NAME [VERSION]`: from the folder to all calls, with a canary and a gate
// on the way. `parent` is the command `adapters`.
Command AddAdaptersPromoteCommand(CLI::App& parent);

}  // namespace pricer
