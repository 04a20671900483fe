#pragma once

#include "base/command.h"

namespace pricer {

// `pricer price`: prices one item.
Command AddPriceCommand(CLI::App& parent);

}  // namespace pricer
