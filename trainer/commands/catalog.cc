#include "trainer/commands/catalog.h"

#include <CLI/CLI.hpp>
#include <memory>

#include "absl/strings/str_format.h"
#include "base/exit_codes.h"
#include "base/interrupt.h"
#include "base/status_macros.h"
#include "catalog/synthetic.h"

namespace pricer {
namespace {

void PrintErrors(const char* predictor, const PriceErrors& errors) {
  absl::PrintF("  %-22s %9.2f %% %14.2f %10.2f %8.3f %9.1f %%\n", predictor,
               100 * errors.median_absolute_percentage_error, errors.median_absolute_error,
               errors.mae, errors.rmsle, 100 * errors.within_20_percent);
}

void Print(const SyntheticCatalogOptions& options, const SyntheticCatalogSummary& summary) {
  const SyntheticTruth& truth = summary.truth;
  const NoiseLimits limits = LimitsOfNoise(truth.noise_sigma);
  absl::PrintF("%s: train.jsonl %d items, validation.jsonl %d, test.jsonl %d, truth.json\n",
               options.output, truth.train, truth.validation, truth.test);
  absl::PrintF("prices from %.2f to %.2f USD, median %.2f\n", summary.min_price, summary.max_price,
               summary.median_price);
  absl::PrintF(
      "noise in ln(price): normal, sigma %g; the price without noise has a median error of %.2f %% "
      "in the limit\n",
      truth.noise_sigma, 100 * limits.median_absolute_percentage_error);
  absl::PrintF(
      "on test.jsonl:          median error  median USD off    MAE USD    RMSLE  "
      "within 20 %%\n");
  PrintErrors("best reachable", truth.best_reachable);
  PrintErrors("median training price", truth.constant_median);
}

absl::StatusOr<int> Run(const SyntheticCatalogOptions& options) {
  const absl::StatusOr<SyntheticCatalogSummary> summary =
      WriteSyntheticCatalog(options, InterruptRequested);
  if (absl::IsCancelled(summary.status())) {
    absl::FPrintF(stderr, "interrupted: nothing was written\n");
    return kExitInterrupted;
  }
  RETURN_IF_ERROR(summary.status());
  Print(options, *summary);
  return kExitDone;
}

}  // namespace

Command AddCatalogCommand(CLI::App& parent) {
  auto options = std::make_shared<SyntheticCatalogOptions>();
  CLI::App* app = parent.add_subcommand(
      "catalog", "Write a synthetic product catalogue whose best reachable errors are known");
  app->add_option("--items", options->items, "Items in all, at least 10; split 80/10/10")
      ->required();
  app->add_option("--seed", options->seed, "The same seed gives the same bytes")
      ->required()
      ->check(CLI::NonNegativeNumber);
  app->add_option("--output", options->output, "Directory; its four files are replaced")
      ->required();
  return {app, [options] { return options->Validate(); }, [options] { return Run(*options); }};
}

}  // namespace pricer
