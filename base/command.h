#pragma once

#include <functional>

#include "absl/status/statusor.h"

namespace CLI {
class App;
}  // namespace CLI

namespace pricer {

// One subcommand of a program. Every commands/<name>.h exports
//   Command Add<Name>Command(CLI::App& parent);
// which adds the subcommand and its options to `parent`.
struct Command {
  // Owned by the parent; `app->parsed()` tells whether this subcommand was chosen.
  CLI::App* app = nullptr;
  // Checks the options that were parsed: an error means wrong usage (exit code 2).
  std::function<absl::Status()> validate;
  // Runs with them and returns the exit code (base/exit_codes.h). An error means failed.
  std::function<absl::StatusOr<int>()> run;
};

}  // namespace pricer
