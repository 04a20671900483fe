#include "trainer/commands/inspect.h"

#include <CLI/CLI.hpp>
#include <memory>

#include "absl/strings/str_format.h"
#include "base/exit_codes.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "trainer/commands/common_options.h"
#include "trainer/commands/lora_flags.h"
#include "trainer/inspection.h"
#include "trainer/inspection_report.h"

namespace pricer {
namespace {

int64_t Rejects(const Inspection& inspection) {
  if (!inspection.data.has_value()) return 0;
  const auto& validation = inspection.data->validation;
  return inspection.data->data.rejects + (validation.has_value() ? validation->rejects : 0);
}

absl::StatusOr<int> Run(const InspectionOptions& options) {
  const auto inspection = RunInspection(options);
  if (absl::IsCancelled(inspection.status())) {
    absl::FPrintF(stderr, "interrupted: nothing was written\n");
    return kExitInterrupted;
  }
  RETURN_IF_ERROR(inspection.status());
  absl::PrintF("%s", InspectionText(*inspection));
  if (!options.json.empty()) {
    RETURN_IF_ERROR(WriteFileAtomically(options.json, InspectionJson(*inspection)));
  }
  if (inspection->failures > 0) return kExitFailed;
  return Rejects(*inspection) > 0 ? kExitDoneWithRejects : kExitDone;
}

void AddMemoryOptions(CLI::App* app, InspectionOptions* options) {
  AddBytesOption(app, "--memory-budget",
                 "Memory such as 12GiB, of a GPU with --device cuda: says how many tokens of a "
                 "batch fit, or what would",
                 [options](int64_t bytes) { options->memory_budget_bytes = bytes; });
  app->add_option("--tokens", options->tokens,
                  "Batches to predict the memory of, in tokens, commas between")
      ->delimiter(',')
      ->capture_default_str();
  app->add_option("--prompt-tokens", options->prompt_tokens,
                  "Length of a typical prompt; 0 = the median of --data, or 128")
      ->capture_default_str();
  AddLoraOptions(app, options);
  app->add_option("--head", options->head, "What is tuned and read: bins, or token, the base's own")
      ->capture_default_str();
  app->add_option("--bins", options->bins, "Bins of the price head")->capture_default_str();
}

void AddDataOptions(CLI::App* app, InspectionOptions* options) {
  app->add_option("--data", options->data, "Training items, one JSON object a line");
  app->add_option("--validation", options->validation,
                  "Held-out items, which are looked for in the training items");
  app->add_option("--max-leak", options->max_leak,
                  "Fail where more than this share of the held-out items is in the training items, "
                  "equal or nearly so; 0.01 is warned of")
      ->capture_default_str();
}

}  // namespace

Command AddInspectCommand(CLI::App& parent) {
  auto options = std::make_shared<InspectionOptions>();
  options->base.weights = "auto";
  CLI::App* app = parent.add_subcommand(
      "inspect", "Describe a base, the memory that it needs, and a data set, before tuning");
  AddBaseOptions(app, &options->base, "nf4 if not given");
  AddMemoryOptions(app, options.get());
  AddDataOptions(app, options.get());
  AddPromptOptions(app, &options->prompt);
  AddRowOptions(app, &options->currency, &options->columns, &options->csv_delimiter,
                &options->max_reject_share);
  app->add_option("--json", options->json, "Writes the same as JSON to this file too");
  return {app, [options] { return options->Validate(); }, [options] { return Run(*options); }};
}

}  // namespace pricer
