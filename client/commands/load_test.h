#pragma once

#include "base/command.h"

namespace pricer {

// `pricer load-test`: how a server does under load.
Command AddLoadTestCommand(CLI::App& parent);

}  // namespace pricer
