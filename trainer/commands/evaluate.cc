#include "trainer/commands/evaluate.h"

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/exit_codes.h"
#include "base/status_macros.h"
#include "trainer/commands/common_options.h"
#include "trainer/evaluation.h"

namespace pricer {
namespace {

// What an interrupted run leaves behind.
std::string RejectsNote(const EvaluationOptions& options) {
  const std::string rejects = RejectsPath(options.predictions);
  if (rejects.empty() || !std::filesystem::exists(rejects)) return "";
  return absl::StrCat("; rows that were rejected are in ", rejects);
}

absl::StatusOr<int> Run(const EvaluationOptions& options) {
  const auto outcome = RunEvaluation(options);
  if (absl::IsCancelled(outcome.status())) {
    absl::FPrintF(stderr, "interrupted: neither %s nor %s was written%s\n", options.predictions,
                  options.json, RejectsNote(options));
    return kExitInterrupted;
  }
  RETURN_IF_ERROR(outcome.status());
  absl::PrintF("%s", EvaluationTable(options.adapter.empty() ? "base" : "adapter", outcome->metrics,
                                     outcome->baseline));
  if (outcome->token_mass.has_value()) {
    const TokenMass& mass = *outcome->token_mass;
    absl::PrintF(
        "mass of the base's own head: %.2f %% on prices to 999, %.2f %% on higher ones, %.2f %% "
        "not "
        "a price, %.2f %% not followed\n",
        100 * mass.prices, 100 * mass.overflow, 100 * mass.not_a_price, 100 * mass.pruned);
  }
  absl::PrintF("predictions: %s\nmetrics: %s\n", options.predictions, options.json);
  if (outcome->rejects == 0) return kExitDone;
  const std::string rejects = RejectsPath(options.predictions);
  absl::PrintF("%d rows were rejected%s%s\n", outcome->rejects, rejects.empty() ? "" : ": ",
               rejects);
  return kExitDoneWithRejects;
}

}  // namespace

Command AddEvaluateCommand(CLI::App& parent) {
  auto options = std::make_shared<EvaluationOptions>();
  options->base.weights = "auto";
  CLI::App* app = parent.add_subcommand(
      "evaluate", "Price the items of a file with a base or an adapter and measure the errors");
  AddBaseOptions(app, &options->base, "if not given, what the adapter was tuned on, else nf4");
  app->add_option("--adapter", options->adapter,
                  "Directory of an adapter; without one the base's own head is read");
  app->add_option("--estimator", options->estimator,
                  "What is said of the distribution: median, mean, geomean, mode, quantile:Q; or "
                  "generate: the first number of generated text, where there is no bins head")
      ->capture_default_str();
  app->add_option("--data", options->data, "Items with prices: JSON lines, CSV or Parquet")
      ->required();
  app->add_option("--train-data", options->train_data,
                  "Items whose median price is the baseline where the adapter does not know it; if "
                  "not given, --data");
  app->add_option("--predictions", options->predictions, "Writes one JSON line for each item")
      ->required();
  app->add_option("--json", options->json, "Writes the metrics as JSON")->required();
  app->add_option("--limit", options->limit, "Only the first so many items; 0 = all")
      ->capture_default_str();
  app->add_option("--batch-tokens", options->batch_tokens, "Tokens of one forward pass")
      ->capture_default_str();
  AddRowOptions(app, &options->currency, &options->columns, &options->csv_delimiter,
                &options->max_reject_share);
  AddPromptOptions(app, &options->prompt);
  app->footer(
      "The prompt and the currency of a published adapter are its own: options that differ from "
      "them are refused.");
  return {app, [options] { return options->Validate(); }, [options] { return Run(*options); }};
}

}  // namespace pricer
