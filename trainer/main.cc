// pricer-trainer: chooses the subcommand; commands/<name>.cc owns its options.

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdio>
#include <vector>

#include "absl/strings/str_format.h"
#include "base/build_info.h"
#include "base/config_flag.h"
#include "base/exit_codes.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "model/tensor_memory.h"
#include "trainer/commands/catalog.h"
#include "trainer/commands/evaluate.h"
#include "trainer/commands/import.h"
#include "trainer/commands/inspect.h"
#include "trainer/commands/merge.h"
#include "trainer/commands/probe.h"
#include "trainer/commands/prune.h"
#include "trainer/commands/quantize.h"
#include "trainer/commands/tune.h"

namespace pricer {
namespace {

int Fail(const Command& command, const absl::Status& status, int exit_code) {
  absl::FPrintF(stderr, "pricer-trainer %s: %s\n", command.app->get_name(), status.message());
  return exit_code;
}

// What was printed may still be in a buffer, and a full disk shows only when that is written.
absl::Status FlushStandardOutput() {
  errno = EIO;  // where it was an earlier write that failed
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return absl::OkStatus();
  return ErrnoStatus("cannot write", "standard output");
}

int RunCommand(const Command& command) {
  if (const absl::Status status = command.validate(); !status.ok()) {
    return Fail(command, status, kExitWrongUsage);
  }
  const absl::StatusOr<int> exit_code = command.run();
  if (!exit_code.ok()) return Fail(command, exit_code.status(), kExitFailed);
  const absl::Status flushed = FlushStandardOutput();
  return flushed.ok() ? *exit_code : Fail(command, flushed, kExitFailed);
}

int RunChosen(const std::vector<Command>& commands) {
  for (const Command& command : commands) {
    if (command.app->parsed()) return RunCommand(command);
  }
  return kExitWrongUsage;
}

int Main(int argc, char** argv) {
  CLI::App app{"Tunes and measures models that price products from their text"};
  app.set_version_flag("--version", VersionText("pricer-trainer"));
  AddConfigFlag(&app, "TOML file with the options of a subcommand in its [section]");
  app.require_subcommand(1);
  // So that --config can stand after the subcommand.
  app.fallthrough();
  const std::vector<Command> commands = {
      AddCatalogCommand(app),  AddImportCommand(app),   AddInspectCommand(app),
      AddTuneCommand(app),     AddEvaluateCommand(app), AddProbeCommand(app),
      AddQuantizeCommand(app), AddMergeCommand(app),    AddPruneCommand(app)};
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitDone : kExitWrongUsage;
  }
  CatchInterrupts();
  TensorMemory::Install();
  return RunChosen(commands);
}

}  // namespace
}  // namespace pricer

int main(int argc, char** argv) { return pricer::Main(argc, argv); }
