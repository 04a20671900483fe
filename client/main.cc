// The command `pricer`: chooses the subcommand; commands/<name>.cc owns its options.

#include <CLI/CLI.hpp>
#include <iostream>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/build_info.h"
#include "base/config_flag.h"
#include "base/exit_codes.h"
#include "client/commands/adapters.h"
#include "client/commands/batch.h"
#include "client/commands/labels.h"
#include "client/commands/load_test.h"
#include "client/commands/operations.h"
#include "client/commands/price.h"
#include "client/commands/promote.h"
#include "client/commands/replay.h"
#include "client/commands/sync.h"

namespace pricer {
namespace {

int Complain(absl::string_view what, int exit_code) {
  std::cerr << "pricer: " << what << '\n';
  return exit_code;
}

int RunCommand(const Command& command) {
  if (const absl::Status status = command.validate(); !status.ok()) {
    return Complain(status.message(), kExitWrongUsage);
  }
  const absl::StatusOr<int> exit_code = command.run();
  if (!exit_code.ok()) {
    // A server's answer is its code and its words.
    return Complain(absl::StrCat(absl::StatusCodeToString(exit_code.status().code()), ": ",
                                 exit_code.status().message()),
                    kExitFailed);
  }
  if (std::cout.flush()) return *exit_code;
  return Complain("cannot write to standard output", kExitFailed);
}

int Main(int argc, char** argv) {
  CLI::App app("Prices products from their text.", "pricer");
  app.set_version_flag("--version", VersionText("pricer"));
  AddConfigFlag(&app, "TOML file with the options of a subcommand in its [section]");
  app.require_subcommand(1);
  // So that --config can stand after the subcommand.
  app.fallthrough();
  CLI::App* adapters = app.add_subcommand("adapters", "operates the adapters of a server");
  adapters->require_subcommand(1);
  const std::vector<Command> commands = {
      AddPriceCommand(app),
      AddBatchCommand(app),
      AddReplayCommand(app),
      AddLoadTestCommand(app),
      AddHealthCommand(app),
      AddLogLevelCommand(app),
      AddAdaptersListCommand(*adapters),
      AddAdaptersWatchCommand(*adapters),
      AddAdaptersLoadCommand(*adapters),
      AddAdaptersUnloadCommand(*adapters),
      AddAdaptersPinCommand(*adapters),
      AddAdaptersUnpinCommand(*adapters),
      AddAdaptersLabelsCommand(*adapters),
      AddAdaptersLabelCommand(*adapters),
      AddAdaptersUnlabelCommand(*adapters),
      AddAdaptersRollbackCommand(*adapters),
      AddAdaptersPromoteCommand(*adapters),
      AddAdaptersSyncCommand(*adapters),
  };
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitDone : kExitWrongUsage;
  }
  for (const Command& command : commands) {
    if (command.app->parsed()) return RunCommand(command);
  }
  return kExitWrongUsage;
}

}  // namespace
}  // namespace pricer

int main(int argc, char** argv) { return pricer::Main(argc, argv); }
