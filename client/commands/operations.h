#pragma once

#include "base/command.h"

namespace pricer {

// `pricer health`: whether a server serves, for container checks.
Command AddHealthCommand(CLI::App& parent);

// `pricer log-level LEVEL`: what a server logs from now on.
Command AddLogLevelCommand(CLI::App& parent);

}  // namespace pricer
