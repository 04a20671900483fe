#pragma once

#include "base/command.h"

namespace pricer {

// `pricer adapters list`: shows a server's adapters. `parent` is the command `adapters`.
Command AddAdaptersListCommand(CLI::App& parent);

}  // namespace pricer
