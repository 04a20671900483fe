#include "trainer/commands/probe.h"

#include <CLI/CLI.hpp>
#include <memory>

#include "absl/strings/str_format.h"
#include "base/exit_codes.h"
#include "base/status_macros.h"
#include "trainer/commands/common_options.h"
#include "trainer/probe.h"

namespace pricer {
namespace {

absl::StatusOr<int> Run(const ProbeOptions& options) {
  const auto lines = RunProbe(options);
  if (absl::IsCancelled(lines.status())) {
    absl::FPrintF(stderr, "interrupted: nothing was written\n");
    return kExitInterrupted;
  }
  RETURN_IF_ERROR(lines.status());
  return kExitDone;
}

}  // namespace

Command AddProbeCommand(CLI::App& parent) {
  auto options = std::make_shared<ProbeOptions>();
  options->base.weights = "auto";
  options->base.dtype = "fp32";
  CLI::App* app =
      parent.add_subcommand("probe", "Next-token log-probabilities, or bin logits, of raw prompts");
  AddBaseOptions(app, &options->base, "fp32 if not given, which changes no stored value");
  app->add_option("--adapter", options->adapter, "Directory of an adapter, ours or PEFT's");
  app->add_option("--input", options->input,
                  "JSON lines {\"id\",\"prompt\"} or {\"id\",\"tokens\"}")
      ->required();
  app->add_option("--output", options->output, "Writes here instead of to standard output");
  app->add_option("--top", options->top, "How many tokens of each prompt, likeliest first")
      ->capture_default_str();
  app->add_flag("--prices", options->prices,
                "Instead of tokens: the masses of the whole prices 0 to 999 behind each prompt");
  app->add_option("--batch-tokens", options->batch_tokens, "Tokens of one forward pass")
      ->capture_default_str();
  return {app, [options] { return options->Validate(); }, [options] { return Run(*options); }};
}

}  // namespace pricer
