#include "trainer/commands/prune.h"

#include <CLI/CLI.hpp>
#include <memory>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "base/exit_codes.h"
#include "base/status_macros.h"
#include "base/units.h"
#include "trainer/prune.h"

namespace pricer {
namespace {

absl::StatusOr<int> Run(const PruneOptions& options) {
  ASSIGN_OR_RETURN(const PruneOutcome outcome, Prune(options, absl::Now()));
  for (const PruneDecision& decision : outcome.decisions) {
    if (decision.removed) {
      absl::PrintF("%s %s (%s): %s\n", options.dry_run ? "would remove" : "removed", decision.path,
                   BytesText(decision.bytes), decision.reason);
    } else {
      absl::PrintF("kept %s: %s\n", decision.path, decision.reason);
    }
  }
  absl::PrintF("%s %s\n", options.dry_run ? "would free" : "freed",
               BytesText(outcome.freed_bytes()));
  for (const std::string& failure : outcome.failures) {
    absl::FPrintF(stderr, "pricer-trainer prune: %s\n", failure);
  }
  return outcome.failures.empty() ? kExitDone : kExitFailed;
}

}  // namespace

Command AddPruneCommand(CLI::App& parent) {
  auto options = std::make_shared<PruneOptions>();
  CLI::App* app = parent.add_subcommand(
      "prune", "Remove old versions of adapters, and old runs, that no label needs");
  app->add_option("--adapters", options->adapters, "Folder of adapters")->required();
  app->add_option("--name", options->name, "Only this adapter and its runs");
  app->add_option("--runs", options->runs, "Folder of runs to prune too");
  app->add_option("--keep", options->keep,
                  "How many of the newest complete versions, and of the newest runs, stay")
      ->required();
  app->add_flag("--dry-run", options->dry_run, "Only print what would be removed");
  return {app, [options] { return options->Validate(); }, [options] { return Run(*options); }};
}

}  // namespace pricer
