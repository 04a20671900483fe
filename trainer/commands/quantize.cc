#include "trainer/commands/quantize.h"

#include <CLI/CLI.hpp>
#include <memory>
#include <string>

#include "absl/strings/str_format.h"
#include "base/exit_codes.h"
#include "base/interrupt.h"
#include "base/status_macros.h"
#include "base/units.h"
#include "model/quantize_checkpoint.h"
#include "trainer/commands/common_options.h"
#include "trainer/option_checks.h"

namespace pricer {
namespace {

struct Options {
  std::string base;
  std::string output;
  QuantizeOptions quantize;
};

absl::StatusOr<int> Run(const Options& options) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Checkpoint> base, Checkpoint::Open(options.base));
  const absl::StatusOr<QuantizeSummary> summary =
      QuantizeCheckpoint(*base, options.output, options.quantize, InterruptRequested);
  if (absl::IsCancelled(summary.status())) {
    absl::FPrintF(stderr, "interrupted: nothing was kept\n");
    return kExitInterrupted;
  }
  RETURN_IF_ERROR(summary.status());
  absl::PrintF("%s: %d linear layers in NF4, %s of tensors instead of %s\n", options.output,
               summary->linears, BytesText(summary->bytes), BytesText(summary->bytes_before));
  return kExitDone;
}

}  // namespace

Command AddQuantizeCommand(CLI::App& parent) {
  auto options = std::make_shared<Options>();
  CLI::App* app = parent.add_subcommand(
      "quantize", "Make a checkpoint directory in bitsandbytes' NF4 form, which loads faster");
  app->add_option("--base", options->base, "Checkpoint directory in 16 or 32 bits")->required();
  app->add_option("--output", options->output, "Directory to make; new or empty")->required();
  app->add_option("--double-quant", options->quantize.double_quantization,
                  "Block maxima in 8 bits too: 4.13 instead of 4.5 bits a weight")
      ->capture_default_str();
  AddShardOption(app, &options->quantize.max_shard_bytes);
  return {app, [options] { return CheckDirectory("--base", options->base); },
          [options] { return Run(*options); }};
}

}  // namespace pricer
