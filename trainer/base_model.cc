#include "trainer/base_model.h"

#include <ATen/Parallel.h>

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "base/interrupt.h"
#include "base/status_macros.h"
#include "model/nf4_cache.h"
#include "trainer/option_checks.h"

namespace pricer {

absl::Status BaseOptions::Validate() const {
  RETURN_IF_ERROR(CheckDirectory("--base", directory));
  if (weights != "auto" && !ParseWeightsKind(weights).ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--weights is ", weights, "; expected nf4, bf16 or fp32"));
  }
  if (!ParseComputeDtype(dtype).ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--dtype is ", dtype, "; expected auto, fp32 or bf16"));
  }
  if (resident != "auto" && resident != "nf4" && resident != "bf16") {
    return absl::InvalidArgumentError(
        absl::StrCat("--resident is ", resident, "; expected auto, nf4 or bf16"));
  }
  const absl::Status usable = ParseDevice(device).status();
  if (!usable.ok()) {
    return absl::Status(usable.code(), absl::StrCat("--", usable.message()));
  }
  return CheckBounds("--threads", threads, 0, 1024);
}

absl::StatusOr<BaseModel> OpenBase(const BaseOptions& options, bool needs_tokenizer) {
  BaseModel base;
  ASSIGN_OR_RETURN(base.checkpoint, Checkpoint::Open(options.directory));
  if (needs_tokenizer || std::filesystem::exists(base.checkpoint->tokenizer_path())) {
    ASSIGN_OR_RETURN(
        base.tokenizer,
        Tokenizer::FromDirectory(options.directory, base.checkpoint->config().vocabulary_size));
  }
  base.name = std::filesystem::weakly_canonical(options.directory).filename().string();
  return base;
}

absl::StatusOr<at::ScalarType> ComputeDtypeOf(const BaseOptions& options) {
  ASSIGN_OR_RETURN(const at::Device device, ParseDevice(options.device));
  return ParseComputeDtype(options.dtype, device);
}

absl::StatusOr<NetworkOptions> NetworkOptionsOf(const BaseOptions& options,
                                                absl::string_view weights) {
  NetworkOptions network;
  ASSIGN_OR_RETURN(network.weights,
                   ParseWeightsKind(options.weights == "auto" ? weights : options.weights));
  ASSIGN_OR_RETURN(network.device, ParseDevice(options.device));
  ASSIGN_OR_RETURN(network.dtype, ParseComputeDtype(options.dtype, network.device));
  return network;
}

absl::StatusOr<std::unique_ptr<Network>> LoadNetwork(const BaseModel& base,
                                                     const BaseOptions& options,
                                                     absl::string_view weights) {
  ASSIGN_OR_RETURN(NetworkOptions network, NetworkOptionsOf(options, weights));
  const Residency resident = options.resident == "nf4"    ? Residency::kNf4
                             : options.resident == "bf16" ? Residency::kDecoded
                                                          : Residency::kWhatFits;
  network.keep_nf4 = KeepsNf4(*base.checkpoint, network, resident);
  if (options.threads > 0) at::set_num_threads(options.threads);
  std::unique_ptr<Checkpoint> form;
  if (!options.nf4_cache.empty() && network.weights == WeightsKind::kNf4 &&
      !base.checkpoint->declares_nf4()) {
    ASSIGN_OR_RETURN(form, OpenNf4Form(*base.checkpoint, options.nf4_cache, InterruptRequested));
  }
  ASSIGN_OR_RETURN(
      std::unique_ptr<Network> loaded,
      Network::Load(form != nullptr ? *form : *base.checkpoint, network, InterruptRequested));
  base.checkpoint->ReleasePages();
  return loaded;
}

absl::StatusOr<PromptTemplate> MakePrompt(const PromptOptions& options,
                                          absl::string_view currency) {
  const std::string preset = options.preset.empty() ? "default" : options.preset;
  ASSIGN_OR_RETURN(PromptTemplate prompt, PromptTemplate::Preset(preset, currency));
  if (options.question.has_value()) prompt.question = *options.question;
  if (options.prefix.has_value()) prompt.prefix = *options.prefix;
  if (options.question.has_value() || options.prefix.has_value()) prompt.preset = "custom";
  if (options.max_prompt_tokens.has_value()) {
    prompt.max_prompt_tokens = *options.max_prompt_tokens;
  }
  RETURN_IF_ERROR(prompt.Validate());
  return prompt;
}

absl::Status CheckContext(const PromptTemplate& prompt, int64_t answer_tokens,
                          const ModelConfig& base) {
  const int64_t room = base.MaxSequenceTokens() - answer_tokens;
  if (prompt.max_prompt_tokens <= room) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("--max-prompt-tokens is ", prompt.max_prompt_tokens, "; the base's context of ",
                   base.context_tokens, " tokens has room for ", room));
}

}  // namespace pricer
