#include "trainer/commands/tune.h"

#include <CLI/CLI.hpp>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "base/exit_codes.h"
#include "base/status_macros.h"
#include "trainer/commands/common_options.h"
#include "trainer/commands/lora_flags.h"
#include "trainer/launch_environment.h"
#include "trainer/report.h"
#include "trainer/run_folder.h"
#include "trainer/tuning_run.h"

namespace pricer {
namespace {

void AddDataOptions(CLI::App* app, TuningOptions* options) {
  app->add_option("--data", options->data, "Training items: JSON lines, CSV or Parquet")
      ->required();
  app->add_option("--validation", options->validation, "Validation items, likewise")->required();
  app->add_option("--output", options->output, "Folder of adapters to publish into")->required();
  app->add_option("--name", options->name,
                  "Name of the adapter; the next version of it is published")
      ->required();
  app->add_option("--runs", options->runs, "Folder that keeps options and metrics of each run")
      ->capture_default_str();
  app->add_flag("--token-cache,!--no-token-cache", options->token_cache,
                "Keep the tokenized training items in <runs>/.token-cache, for the next run")
      ->default_str("true");
  app->add_option(
      "--resume", options->resume,
      "Folder of a run that was stopped: it goes on from its newest checkpoint; repeat "
      "the options it began with. latest = the newest run of --name, if it was stopped, "
      "or a new one; where it has published, nothing is left to do");
  app->add_option("--save-minutes", options->save_minutes,
                  "Time between two checkpoints; 0 = one after every step")
      ->capture_default_str();
  app->add_option("--keep-checkpoints", options->keep_checkpoints,
                  "How many of the newest checkpoints stay")
      ->capture_default_str();
  AddRowOptions(app, &options->currency, &options->columns, &options->csv_delimiter,
                &options->max_reject_share);
}

void AddAdapterOptions(CLI::App* app, TuningOptions* options) {
  AddLoraOptions(app, options);
  app->add_option("--lora-alpha", options->lora_alpha, "LoRA scale = alpha / r")
      ->capture_default_str();
  app->add_flag("--rslora", options->rslora, "LoRA scale = alpha / sqrt(r)");
  AddPatternOption(app, "--alpha-pattern", "PATTERN=ALPHA: likewise for alpha",
                   &options->alpha_pattern);
  app->add_option(
         "--head", options->head,
         "bins: a head of price bins is trained too; token: prices are read from the base's "
         "own head, which learns to say them behind the prompt")
      ->capture_default_str()
      ->check(CLI::IsMember({"bins", "token"}));
  app->add_option("--completion-suffix", options->completion_suffix,
                  "Of the token head: what follows the whole price [.00 with --preset reference, "
                  "else nothing]");
  app->add_flag("--train-end-token,!--no-train-end-token", options->train_end_token,
                "Of the token head: whether the base's end token ends a completion")
      ->default_str("true");
  app->add_option("--bins", options->bins, "Bins of the price head, even in ln(price)")
      ->capture_default_str();
  app->add_option("--sigma", options->sigma, "Width of the smoothed target, in bins")
      ->capture_default_str();
  app->add_option(
         "--head-basis", options->head_basis,
         "Coordinates in which the price head is trained: cosine, or rows as transformers' "
         "Trainer has them, which need far more items")
      ->capture_default_str()
      ->check(CLI::IsMember({"cosine", "rows"}));
}

void AddTrainingOptions(CLI::App* app, TuningOptions* options) {
  Trainer::Options& training = options->training;
  app->add_option("--epochs", options->epochs,
                  "Passes over the training items; 0 = one, or as many as --max-steps takes")
      ->capture_default_str();
  app->add_option("--max-steps", options->max_steps, "Most optimizer steps; 0 = all of the epochs")
      ->capture_default_str();
  app->add_option("--max-minutes", options->max_minutes,
                  "Time for the steps: after the first three their number is lowered to what "
                  "this allows; 0 = no limit")
      ->capture_default_str();
  app->add_option("--batch-tokens", options->batch_tokens, "Tokens of an optimizer step")
      ->capture_default_str();
  app->add_option("--batch-items", options->batch_items,
                  "Items of an optimizer step, instead of tokens: each epoch ends with a step of "
                  "what is left; 0 = --batch-tokens counts")
      ->capture_default_str();
  app->add_option_function<std::string>(
         "--order",
         [options](const std::string& name) { options->order = *ParseSampleOrder(name); },
         "Order of the items: shuffled, sequential (as in the file) or length-grouped")
      ->default_str("shuffled")
      ->check(CLI::IsMember({"shuffled", "sequential", "length-grouped"}));
  app->add_option("--micro-batch-tokens", options->micro_batch_tokens,
                  "Tokens of one forward and backward pass; bounds the memory")
      ->capture_default_str();
  AddBytesOption(app, "--memory-budget",
                 "Memory of each process, or of its tensors on a GPU, such as 12GiB: activations "
                 "that do not fit are computed twice, with the same result; a run that cannot fit "
                 "is told what would",
                 [options](int64_t bytes) { options->memory_budget_bytes = bytes; });
  app->add_option("--lr", training.learning_rate, "Learning rate of the LoRA matrices")
      ->capture_default_str();
  app->add_option("--head-lr", training.head_learning_rate, "Learning rate of the price head")
      ->capture_default_str();
  app->add_option_function<std::string>(
         "--lr-schedule",
         [&training](const std::string& name) { training.schedule = *ParseLrScheduleKind(name); },
         "How the rates go after the warm-up: cosine or linear to zero, or constant")
      ->default_str("cosine")
      ->check(CLI::IsMember({"cosine", "linear", "constant"}));
  app->add_option("--warmup-ratio", training.warmup_ratio, "Share of the steps with a rising rate")
      ->capture_default_str();
  app->add_option("--warmup-steps", training.warmup_steps,
                  "Steps with a rising rate; 0 = as many as --warmup-ratio says")
      ->capture_default_str();
  app->add_option("--weight-decay", training.adamw.weight_decay, "Decoupled, on all tuned tensors")
      ->capture_default_str();
  app->add_option("--max-grad-norm", training.max_gradient_norm,
                  "Gradients are scaled down to this norm; 0 = never")
      ->capture_default_str();
  app->add_option_function<std::vector<double>>(
         "--betas",
         [&training](const std::vector<double>& betas) {
           training.adamw.beta1 = betas[0];
           training.adamw.beta2 = betas[1];
         },
         "Of AdamW: two numbers with a comma between [0.9,0.999]")
      ->delimiter(',')
      ->expected(2);
  app->add_option("--eps", training.adamw.epsilon, "Of AdamW")->capture_default_str();
  app->add_option("--seed", options->seed, "Of the order of items, the first matrices and dropout")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app->add_option("--validation-items", options->validation_items,
                  "Rows of the validation file that are used")
      ->capture_default_str();
  app->add_option("--validation-every", options->validation_every,
                  "Steps between two validations; 0 = four in the run")
      ->capture_default_str();
  app->add_option("--patience", options->patience,
                  "Validations in a row without a lower MAE that end the run; 0 = it never ends "
                  "early")
      ->capture_default_str();
}

void AddProcessOptions(CLI::App* app, TuningOptions* options) {
  app->add_option_function<std::string>(
         "--rank-timeout",
         [options](const std::string& text) {
           if (!absl::ParseDuration(text, &options->rank_timeout)) {
             throw CLI::ValidationError("--rank-timeout",
                                        "expected a duration such as 60s, got " + text);
           }
         },
         "Of several processes that torchrun has started: one that gives no sign of life for so "
         "long counts as gone, and the run stops")
      ->default_str(absl::FormatDuration(options->rank_timeout));
}

constexpr char kLatest[] = "latest";

// What `--resume latest` stands for: the options with a run to go on with, or with none; nothing
// where the latest has published.
absl::StatusOr<std::optional<TuningOptions>> ResolveResume(TuningOptions options) {
  if (options.resume != kLatest) return options;
  options.resume.clear();
  if (options.launch.rank > 0) return options;  // rank 0 alone looks at the run
  ASSIGN_OR_RETURN(const std::optional<std::string> latest, LatestRun(options.runs, options.name));
  if (!latest.has_value()) return options;
  if (IsPublished(*latest)) {
    absl::PrintF("%s has published its adapter already: %s\n", *latest, PublishedFile(*latest));
    return std::optional<TuningOptions>();
  }
  if (CanBeResumed(*latest)) {
    options.resume = *latest;
    absl::FPrintF(stderr, "going on with %s\n", *latest);
  }
  return options;
}

int Report(const TuningOptions& options, const TuningOutcome& outcome) {
  if (!outcome.lost.empty()) absl::FPrintF(stderr, "pricer-trainer tune: %s\n", outcome.lost);
  // Rank 0 tells the rest.
  if (options.launch.rank > 0) return outcome.interrupted ? kExitResumable : kExitDone;
  if (outcome.interrupted && outcome.resumable) {
    absl::FPrintF(stderr,
                  "interrupted after %d steps: the same command with --resume %s goes on from "
                  "there\n",
                  outcome.steps, outcome.run_directory);
    return kExitResumable;
  }
  if (outcome.interrupted) {
    absl::FPrintF(stderr,
                  "interrupted after %d steps: nothing was published; options and metrics so far "
                  "are in %s\n",
                  outcome.steps, outcome.run_directory);
    return kExitInterrupted;
  }
  if (outcome.out_of_patience) {
    absl::PrintF("ended early: %d validations in a row brought no lower MAE\n", options.patience);
  }
  absl::PrintF("published %s (version %d of %s): the tensors after step %d of %d\n",
               outcome.published.directory, outcome.published.version, options.name,
               outcome.best_step, outcome.steps);
  absl::PrintF("validation, %d items: %s\n", outcome.validation.items,
               MetricsLine(outcome.validation));
  absl::PrintF("options and metrics: %s\n", outcome.run_directory);
  if (outcome.rejects > 0) {
    absl::PrintF("%d rows were rejected: %s/rejects-*.jsonl\n", outcome.rejects,
                 outcome.run_directory);
  }
  return outcome.rejects > 0 ? kExitDoneWithRejects : kExitDone;
}

}  // namespace

Command AddTuneCommand(CLI::App& parent) {
  auto options = std::make_shared<TuningOptions>();
  options->base.weights = "nf4";
  CLI::App* app = parent.add_subcommand(
      "tune", "Fine-tune a LoRA adapter with a price head and publish it as the next version");
  AddBaseOptions(app, &options->base, "nf4 if not given");
  AddDataOptions(app, options.get());
  AddPromptOptions(app, &options->prompt);
  AddAdapterOptions(app, options.get());
  AddTrainingOptions(app, options.get());
  AddProcessOptions(app, options.get());
  return {app,
          [options]() -> absl::Status {
            ASSIGN_OR_RETURN(options->launch, ReadLaunchEnvironment());
            if (options->resume != kLatest) return options->Validate();
            TuningOptions anew = *options;
            anew.resume.clear();
            return anew.Validate();
          },
          [options]() -> absl::StatusOr<int> {
            ASSIGN_OR_RETURN(const std::optional<TuningOptions> resolved, ResolveResume(*options));
            if (!resolved.has_value()) return kExitDone;
            ASSIGN_OR_RETURN(const TuningOutcome outcome, RunTuning(*resolved));
            return Report(*resolved, outcome);
          }};
}

}  // namespace pricer
