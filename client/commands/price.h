#pragma once

#include "client/commands/command.h"

namespace pricer {

// `pricer price`: prices one item.
Command AddPriceCommand(CLI::App& parent);

}  // namespace pricer
