#pragma once

#include "base/command.h"

// Labels of an adapter, of a server (--server) or of an adapter folder (--adapters). `parent` is
// the command `adapters`.

namespace pricer {

// `pricer adapters labels NAME`: shows them and their latest moves.
Command AddAdaptersLabelsCommand(CLI::App& parent);

// `pricer adapters label NAME LABEL VERSION`: points one to a version.
Command AddAdaptersLabelCommand(CLI::App& parent);

// `pricer adapters unlabel NAME LABEL`: takes one away.
Command AddAdaptersUnlabelCommand(CLI::App& parent);

// `pricer adapters rollback NAME LABEL`: puts one back to where it was.
Command AddAdaptersRollbackCommand(CLI::App& parent);

}  // namespace pricer
