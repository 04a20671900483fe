#include "trainer/commands/merge.h"

#include <CLI/CLI.hpp>
#include <memory>
#include <string>

#include "absl/strings/str_format.h"
#include "base/exit_codes.h"
#include "base/status_macros.h"
#include "base/units.h"
#include "trainer/commands/common_options.h"
#include "trainer/merge.h"

namespace pricer {
namespace {

void PrintRounding(const MergeSummary& summary, const std::string& dtype) {
  if (summary.worst_module.empty()) {
    absl::PrintF("rounding the merged weights to %s: no error\n", dtype);
    return;
  }
  absl::PrintF(
      "rounding the merged weights to %s: relative error %.2e at most (%s), %.2e on average; "
      "the errors' norm is %.2g times that of what the adapter changed\n",
      dtype, summary.max_relative_error, summary.worst_module, summary.mean_relative_error,
      summary.error_of_change);
}

void PrintComparison(const MergeComparison& comparison, bool has_bins) {
  absl::PrintF(
      "%d %s, base with adapter against merged: %s differ by at most %.2e, final hidden states by "
      "%.2e",
      comparison.prompts, comparison.golden ? "golden items" : "probe prompts",
      has_bins ? "bin logits" : "logits", comparison.logits_difference,
      comparison.hidden_difference);
  if (comparison.price_change.has_value()) {
    absl::PrintF(", prices by %.3f %%", 100 * *comparison.price_change);
  }
  absl::PrintF("\n");
}

absl::StatusOr<int> Run(const MergeRunOptions& options) {
  const absl::StatusOr<MergeOutcome> outcome = RunMerge(options);
  if (absl::IsCancelled(outcome.status())) {
    absl::FPrintF(stderr, "interrupted: nothing was kept\n");
    return kExitInterrupted;
  }
  RETURN_IF_ERROR(outcome.status());
  const MergeSummary& summary = outcome->summary;
  absl::PrintF("%s: %s in %s, %s; %d linear layers merged onto %s weights\n", options.output,
               outcome->has_bins ? "LlamaForSequenceClassification" : "LlamaForCausalLM",
               options.dtype, BytesText(summary.bytes), summary.merged,
               WeightsKindName(outcome->onto));
  PrintRounding(summary, options.dtype);
  if (outcome->comparison.has_value()) PrintComparison(*outcome->comparison, outcome->has_bins);
  return kExitDone;
}

}  // namespace

Command AddMergeCommand(CLI::App& parent) {
  auto options = std::make_shared<MergeRunOptions>();
  CLI::App* app = parent.add_subcommand(
      "merge", "Add an adapter to its base and write both as one plain checkpoint");
  app->add_option("--base", options->base, "Checkpoint directory of the base model")->required();
  app->add_option("--adapter", options->adapter,
                  "Directory of an adapter's version, or of PEFT's own")
      ->required();
  app->add_option("--output", options->output, "Directory to make; new or empty")->required();
  app->add_option("--onto", options->onto,
                  "Weights that the adapter is added to: dequantized (the base as rounded to NF4) "
                  "or original; auto = what its pricer.json says it was tuned on")
      ->capture_default_str();
  app->add_option("--dtype", options->dtype, "Type of the weights written: bf16, fp16 or fp32")
      ->capture_default_str();
  AddShardOption(app, &options->max_shard_bytes);
  app->add_option("--check", options->check,
                  "Compare in fp32 or bf16 what base with adapter and merged checkpoint answer, "
                  "which takes the memory of a whole model; or none")
      ->capture_default_str();
  app->add_option("--threads", options->threads, "Threads of the tensor library; 0 = all cores")
      ->capture_default_str();
  return {app, [options] { return options->Validate(); }, [options] { return Run(*options); }};
}

}  // namespace pricer
