#pragma once

#include <string>

#include "server/server_options.h"

namespace CLI {
class App;
}  // namespace CLI

namespace pricer {

// The program's command line, and its TOML file under the same names.
struct ServerFlags {
  ServerOptions options;
  bool check_config = false;
};

// Adds all flags to `app`, whose parse fills `flags`; both must outlive it. A value that has not
// the form of its flag is CLI11's ParseError.
void AddServerFlags(ServerFlags* flags, CLI::App* app);

}  // namespace pricer
