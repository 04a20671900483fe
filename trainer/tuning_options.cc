#include "trainer/tuning_options.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "model/adapter_name.h"
#include "trainer/number_text.h"
#include "trainer/option_checks.h"
#include "trainer/publication.h"

namespace pricer {

namespace {

std::string ScheduleName(LrSchedule::Kind kind) {
  switch (kind) {
    case LrSchedule::Kind::kLinear:
      return "linear";
    case LrSchedule::Kind::kConstant:
      return "constant";
    case LrSchedule::Kind::kCosine:
      break;
  }
  return "cosine";
}

std::string PatternsText(const std::map<std::string, double>& patterns) {
  return absl::StrJoin(patterns, ",", [](std::string* out, const auto& entry) {
    absl::StrAppend(out, entry.first, "=", RoundTripText(entry.second));
  });
}

}  // namespace

std::string CompletionSuffix(const TuningOptions& options) {
  if (options.completion_suffix.has_value()) return *options.completion_suffix;
  return options.prompt.preset == "reference" ? ".00" : "";
}

PeftConfig LoraConfigOf(const TuningOptions& options) {
  PeftConfig config =
      options.LoraConfig(options.head == "token" ? PeftTask::kCausalLm : PeftTask::kSeqCls);
  config.alpha = options.lora_alpha;
  config.use_rslora = options.rslora;
  config.alpha_pattern = options.alpha_pattern;
  return config;
}

NamedTexts ResultOptions(const TuningOptions& options) {
  const Trainer::Options& training = options.training;
  return {{"lora_r", absl::StrCat(options.lora_rank)},
          {"lora_alpha", RoundTripText(options.lora_alpha)},
          {"lora_dropout", RoundTripText(options.lora_dropout)},
          {"rslora", options.rslora ? "true" : "false"},
          {"target_modules", absl::StrJoin(options.target_modules, ",")},
          {"target_regex", options.target_regex},
          {"exclude_modules", absl::StrJoin(options.exclude_modules, ",")},
          {"lora_layers", absl::StrJoin(options.lora_layers, ",")},
          {"rank_pattern", absl::StrJoin(options.rank_pattern, ",", absl::PairFormatter("="))},
          {"alpha_pattern", PatternsText(options.alpha_pattern)},
          {"head", options.head},
          {"completion_suffix", CompletionSuffix(options)},
          {"train_end_token", options.train_end_token ? "true" : "false"},
          {"bins", absl::StrCat(options.bins)},
          {"sigma", RoundTripText(options.sigma)},
          {"head_basis", options.head_basis},
          {"lr", RoundTripText(training.learning_rate)},
          {"head_lr", RoundTripText(training.head_learning_rate)},
          {"lr_schedule", ScheduleName(training.schedule)},
          {"warmup_ratio", RoundTripText(training.warmup_ratio)},
          {"warmup_steps", absl::StrCat(training.warmup_steps)},
          {"patience", absl::StrCat(options.patience)},
          {"max_grad_norm", RoundTripText(training.max_gradient_norm)},
          {"betas", absl::StrCat(RoundTripText(training.adamw.beta1), ",",
                                 RoundTripText(training.adamw.beta2))},
          {"eps", RoundTripText(training.adamw.epsilon)},
          {"weight_decay", RoundTripText(training.adamw.weight_decay)},
          {"epochs", absl::StrCat(options.epochs)},
          {"max_steps", absl::StrCat(options.max_steps)},
          {"max_minutes", RoundTripText(options.max_minutes)},
          {"batch_tokens", absl::StrCat(options.batch_tokens)},
          {"batch_items", absl::StrCat(options.batch_items)},
          {"order", std::string(SampleOrderName(options.order))},
          {"micro_batch_tokens", absl::StrCat(options.micro_batch_tokens)},
          {"validation_items", absl::StrCat(options.validation_items)},
          {"validation_every", absl::StrCat(options.validation_every)},
          {"max_reject_share", RoundTripText(options.max_reject_share)},
          {"fields", absl::StrJoin(options.columns, ",", absl::PairFormatter("="))},
          {"seed", absl::StrCat(options.seed)}};
}

NamedTexts AllOptions(const TuningOptions& options, const PromptTemplate& prompt) {
  NamedTexts all = {
      {"base", options.base.directory},
      {"data", options.data},
      {"validation", options.validation},
      {"output", options.output},
      {"name", options.name},
      {"runs", options.runs},
      {"token_cache", options.token_cache ? "true" : "false"},
      {"save_minutes", RoundTripText(options.save_minutes)},
      {"keep_checkpoints", absl::StrCat(options.keep_checkpoints)},
      {"weights", options.base.weights},
      {"dtype", options.base.dtype},
      {"threads", absl::StrCat(options.base.threads)},
      {"memory_budget", options.memory_budget_bytes.has_value()
                            ? absl::StrCat(*options.memory_budget_bytes)
                            : "none"},
      {"currency", options.currency},
      {"csv_delimiter",
       options.csv_delimiter == '\0' ? "by header" : std::string(1, options.csv_delimiter)},
      {"preset", prompt.preset},
      {"question", prompt.question},
      {"prefix", prompt.prefix},
      {"max_prompt_tokens", absl::StrCat(prompt.max_prompt_tokens)}};
  for (auto& option : ResultOptions(options)) all.push_back(std::move(option));
  return all;
}

absl::Status TuningOptions::Validate() const {
  RETURN_IF_ERROR(base.Validate());
  RETURN_IF_ERROR(CheckRegularFile("--data", data));
  RETURN_IF_ERROR(CheckRegularFile("--validation", validation));
  RETURN_IF_ERROR(CheckNotEmpty("--output", output));
  RETURN_IF_ERROR(CheckNotEmpty("--runs", runs));
  // The others get it from rank 0.
  if (!resume.empty() && launch.rank == 0) RETURN_IF_ERROR(CheckDirectory("--resume", resume));
  if (rank_timeout < absl::Seconds(3) || rank_timeout > absl::Hours(24)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--rank-timeout is ", absl::FormatDuration(rank_timeout), "; it must be 3s to 24h"));
  }
  RETURN_IF_ERROR(CheckBounds<int64_t>("--patience", patience, 0, kManyItems));
  RETURN_IF_ERROR(CheckBounds("--save-minutes", save_minutes, 0.0, 1e6));
  RETURN_IF_ERROR(CheckBounds<int64_t>("--keep-checkpoints", keep_checkpoints, 1, 10000));
  RETURN_IF_ERROR(ValidateAdapterName(name));
  RETURN_IF_ERROR(MakePrompt(prompt, currency).status());
  RETURN_IF_ERROR(training.Validate());
  RETURN_IF_ERROR(ValidateLora());
  RETURN_IF_ERROR(CheckBounds("--lora-alpha", lora_alpha, 1e-6, 1e6));
  RETURN_IF_ERROR(LoraConfigOf(*this).Validate());
  if (head != "bins" && head != "token") {
    return absl::InvalidArgumentError(absl::StrCat("--head is ", head, "; expected bins or token"));
  }
  RETURN_IF_ERROR(CheckBounds("--bins", bins, 2, 4096));
  RETURN_IF_ERROR(CheckBounds("--sigma", sigma, 1e-3, 100.0));
  if (head_basis != "cosine" && head_basis != "rows") {
    return absl::InvalidArgumentError(
        absl::StrCat("--head-basis is ", head_basis, "; expected cosine or rows"));
  }
  RETURN_IF_ERROR(CheckBounds<int64_t>("--epochs", epochs, 0, 10000));
  RETURN_IF_ERROR(CheckBounds<int64_t>("--max-steps", max_steps, 0, kManyItems));
  RETURN_IF_ERROR(CheckBounds("--max-minutes", max_minutes, 0.0, 1e6));
  RETURN_IF_ERROR(CheckBounds<int64_t>("--batch-tokens", batch_tokens, 1, kManyItems));
  RETURN_IF_ERROR(CheckBounds<int64_t>("--batch-items", batch_items, 0, kManyItems));
  RETURN_IF_ERROR(CheckBounds<int64_t>("--micro-batch-tokens", micro_batch_tokens, 1, kManyItems));
  if (memory_budget_bytes.has_value()) {
    RETURN_IF_ERROR(CheckMemoryBudget(*memory_budget_bytes));
  }
  RETURN_IF_ERROR(
      CheckBounds<int64_t>("--validation-items", validation_items, kMinGoldenItems, kManyItems));
  RETURN_IF_ERROR(CheckBounds<int64_t>("--validation-every", validation_every, 0, kManyItems));
  RETURN_IF_ERROR(CheckBounds("--max-reject-share", max_reject_share, 0.0, 1.0));
  return absl::OkStatus();
}

}  // namespace pricer
