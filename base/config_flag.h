#pragma once

#include <string>

namespace CLI {
class App;
}  // namespace CLI

namespace pricer {

// Adds --config FILE: options as TOML under the names of the flags, those of a subcommand in its
// [section]. What the command line gives wins. An unknown key, a value that is no string, number,
// boolean or list of these, and a file that is not TOML end the parse with CLI::ParseError, which
// names the key, or file, line and column.
void AddConfigFlag(CLI::App* app, const std::string& help);

}  // namespace pricer
