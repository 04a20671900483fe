#include "trainer/commands/common_options.h"

#include <CLI/CLI.hpp>

#include "absl/status/statusor.h"
#include "base/units.h"
#include "catalog/row_flags.h"

namespace pricer {
void AddBaseOptions(CLI::App* app, BaseOptions* options, const std::string& weights_help) {
  app->add_option("--base", options->directory, "Checkpoint directory of the base model")
      ->required();
  app->add_option(
      "--weights", options->weights,
      "What the base's linear layers are rounded to: nf4, bf16 or fp32; " + weights_help);
  app->add_option(
         "--dtype", options->dtype,
         "Compute in fp32 or bf16; auto = bf16 on a GPU and where the processor multiplies it "
         "natively")
      ->capture_default_str();
  app->add_option("--device", options->device,
                  "What computes: cpu, cuda (the first GPU), or auto = cuda where there is one")
      ->capture_default_str();
  app->add_option(
         "--resident", options->resident,
         "What of NF4 layers stays on a GPU: nf4, bf16 (decoded once), or auto = bf16 where "
         "it takes at most half of the free memory")
      ->capture_default_str();
  app->add_option("--nf4-cache", options->nf4_cache,
                  "Folder that keeps the base in NF4, so that only the first load quantizes it");
  app->add_option("--threads", options->threads, "Threads of the tensor library; 0 = all cores")
      ->capture_default_str();
}

void AddPromptOptions(CLI::App* app, PromptOptions* options) {
  app->add_option("--preset", options->preset, "Wording of the prompt: default or reference");
  app->add_option("--question", options->question,
                  "Question before the item, instead of the preset's");
  app->add_option("--prefix", options->prefix,
                  "What the price follows on after the item, instead of the preset's");
  app->add_option("--max-prompt-tokens", options->max_prompt_tokens,
                  "Longest prompt; the item's text is cut to fit");
}

void AddRowOptions(CLI::App* app, std::string* currency,
                   std::map<std::string, std::string>* columns, char* csv_delimiter,
                   double* max_reject_share) {
  app->add_option("--currency", *currency, "ISO code; rows in another currency are rejected")
      ->capture_default_str();
  AddFieldOption(app, columns);
  AddCsvDelimiterOption(app, csv_delimiter);
  app->add_option("--max-reject-share", *max_reject_share,
                  "Stop where more than this share of the rows is rejected")
      ->capture_default_str();
}

CLI::Option* AddBytesOption(CLI::App* app, const std::string& name, const std::string& help,
                            const std::function<void(int64_t)>& set) {
  return app->add_option_function<std::string>(
      name,
      [name, set](const std::string& text) {
        const absl::StatusOr<int64_t> parsed = ParseBytes(text);
        if (!parsed.ok()) throw CLI::ValidationError(name, std::string(parsed.status().message()));
        set(*parsed);
      },
      help);
}

void AddShardOption(CLI::App* app, int64_t* bytes) {
  AddBytesOption(app, "--max-shard-size", "Larger weights are cut into several files: 512MiB, 5GiB",
                 [bytes](int64_t parsed) { *bytes = parsed; })
      ->default_str(BytesText(*bytes));
}

}  // namespace pricer
