#pragma once

#include "base/command.h"

// What operators ask of a server's adapters, and do to them. `parent` is the command `adapters`.

namespace pricer {

// `pricer adapters list`: shows them.
Command AddAdaptersListCommand(CLI::App& parent);

// `pricer adapters watch`: shows them and each change.
Command AddAdaptersWatchCommand(CLI::App& parent);

// `pricer adapters load NAME [VERSION]`: loads a version now.
Command AddAdaptersLoadCommand(CLI::App& parent);

// `pricer adapters unload NAME VERSION`: takes one out of service.
Command AddAdaptersUnloadCommand(CLI::App& parent);

// `pricer adapters pin NAME VERSION`, `unpin`: keeps one in memory, or no longer.
Command AddAdaptersPinCommand(CLI::App& parent);
Command AddAdaptersUnpinCommand(CLI::App& parent);

}  // namespace pricer
