#pragma once

#include "base/command.h"

namespace pricer {

// `pricer replay`: whether logged replies can be reproduced.
Command AddReplayCommand(CLI::App& parent);

}  // namespace pricer
