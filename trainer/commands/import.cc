#include "trainer/commands/import.h"

#include <CLI/CLI.hpp>
#include <memory>
#include <string>

#include "absl/strings/str_format.h"
#include "base/exit_codes.h"
#include "base/interrupt.h"
#include "base/status_macros.h"
#include "model/import_gguf.h"
#include "model/model_config.h"
#include "trainer/option_checks.h"

namespace pricer {
namespace {

struct ImportOptions {
  std::string gguf;
  std::string output;
  std::string dtype = "bf16";
};

absl::StatusOr<int> Run(const ImportOptions& options) {
  const Dtype dtype = options.dtype == "fp32" ? Dtype::kF32 : Dtype::kBF16;
  const absl::Status status = ImportGguf(options.gguf, options.output, dtype, InterruptRequested);
  if (absl::IsCancelled(status)) {
    absl::FPrintF(stderr, "interrupted: nothing was kept\n");
    return kExitInterrupted;
  }
  RETURN_IF_ERROR(status);
  ASSIGN_OR_RETURN(const ModelConfig config,
                   ModelConfig::FromFile(options.output + "/config.json"));
  absl::PrintF(
      "%s: Llama architecture, %d layers, hidden size %d, vocabulary of %d, %.1f million "
      "parameters in %s\n",
      options.output, config.layer_count, config.hidden_size, config.vocabulary_size,
      static_cast<double>(config.ParameterCount()) / 1e6, options.dtype);
  return kExitDone;
}

}  // namespace

Command AddImportCommand(CLI::App& parent) {
  auto options = std::make_shared<ImportOptions>();
  CLI::App* app = parent.add_subcommand(
      "import", "Make a checkpoint directory that transformers reads out of a GGUF file");
  app->add_option("--gguf", options->gguf, "File of a model of the Llama architecture")->required();
  app->add_option("--output", options->output, "Directory to make; new or empty")->required();
  app->add_option("--dtype", options->dtype, "Type of the weights written")
      ->check(CLI::IsMember({"bf16", "fp32"}))
      ->capture_default_str();
  return {app, [options] { return CheckFile("--gguf", options->gguf); },
          [options] { return Run(*options); }};
}

}  // namespace pricer
