#include "trainer/commands/lora_flags.h"

namespace pricer {

void AddLoraOptions(CLI::App* app, LoraOptions* options) {
  app->add_option("--lora-r", options->lora_rank, "Rank of the LoRA matrices")
      ->capture_default_str();
  app->add_option("--lora-dropout", options->lora_dropout,
                  "Share of the inputs of every LoRA matrix A that a training step leaves out")
      ->capture_default_str();
  CLI::Option* names =
      app->add_option("--target-modules", options->target_modules,
                      "Linear layers with LoRA: names with commas between, or all-linear")
          ->delimiter(',')
          ->capture_default_str();
  app->add_option("--target-regex", options->target_regex,
                  "Instead of names: a regular expression over the whole path of a module, such as "
                  ".*layers\\.[0-7]\\.mlp\\..*")
      ->excludes(names);
  app->add_option("--exclude-modules", options->exclude_modules,
                  "Names of layers that carry no LoRA whatever the targets say")
      ->delimiter(',');
  app->add_option("--lora-layers", options->lora_layers,
                  "Numbers of the decoder layers with LoRA, commas between; all if not given")
      ->delimiter(',');
  AddPatternOption(app, "--rank-pattern",
                   "PATTERN=R: another rank for modules whose path ends with what the regular "
                   "expression matches; can be repeated",
                   &options->rank_pattern);
}

}  // namespace pricer
