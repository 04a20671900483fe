#pragma once

#include "base/command.h"

namespace pricer {

// `pricer adapters sync FROM TO`: brings one place of adapters up to another, once or again and
// again. `parent` is the command `adapters`.
Command AddAdaptersSyncCommand(CLI::App& parent);

}  // namespace pricer
