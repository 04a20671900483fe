#include "trainer/inspection.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "trainer/option_checks.h"
#include "trainer/tuning_memory.h"

namespace pricer {
namespace {

PeftConfig AdapterOf(const InspectionOptions& options) {
  return options.LoraConfig(options.head == "token" ? PeftTask::kCausalLm : PeftTask::kSeqCls);
}

PlanPrompts PromptsOf(const InspectionOptions& options, const PromptTemplate& prompt,
                      const Inspection& inspection) {
  PlanPrompts prompts;
  const auto& tokenizer = inspection.tokenizer;
  if (options.head == "token") {
    // The price and the token that ends it.
    const bool known = tokenizer.has_value() && !tokenizer->decimal.empty();
    prompts.answers =
        known ? static_cast<int64_t>(tokenizer->decimal.size()) + 1 : kTypicalPriceTokens;
  }
  prompts.longest = std::min(prompt.max_prompt_tokens, inspection.config.MaxSequenceTokens());
  prompts.tokens = options.prompt_tokens;
  if (prompts.tokens == 0) {
    prompts.tokens = inspection.data.has_value()
                         ? static_cast<int64_t>(inspection.data->data.tokens.median)
                         : kTypicalPromptTokens;
  }
  prompts.tokens = std::clamp<int64_t>(prompts.tokens, 1, prompts.longest);
  // A token of the answer behind the prompt is fed too.
  prompts.longest += prompts.answers - 1;
  prompts.tokens += prompts.answers - 1;
  return prompts;
}

absl::Status PlanInspectedMemory(const InspectionOptions& options, const PromptTemplate& prompt,
                                 const Checkpoint& checkpoint, Inspection* inspection) {
  MemoryPlanRequest& request = inspection->memory_request;
  ASSIGN_OR_RETURN(request.weights,
                   WeightsPlanOf(options.base, checkpoint, options.memory_budget_bytes));
  request.adapter = AdapterOf(options);
  request.bins = options.head == "token" ? 0 : options.bins;
  request.prompts = PromptsOf(options, prompt, *inspection);
  for (const int64_t tokens : options.tokens) {
    request.tokens.push_back(std::max(tokens, request.prompts.answers));
  }
  request.budget_bytes = options.memory_budget_bytes;
  ASSIGN_OR_RETURN(inspection->memory, PlanMemory(checkpoint, request));
  return absl::OkStatus();
}

void WarnOfData(const InspectionOptions& options, Inspection* inspection) {
  const DataInspection& data = *inspection->data;
  const auto percent = [](double share) { return absl::StrFormat("%.2f %%", 100 * share); };
  const double leak = data.leak_share();
  if (leak > options.warn_leak) {
    inspection->warnings.push_back(absl::StrCat(
        percent(leak), " of the rows of ", options.validation, " are in ", options.data,
        " too, equal or nearly so: what is measured on them is too good",
        leak > options.max_leak ? absl::StrCat("; --max-leak allows ", percent(options.max_leak))
                                : ""));
    if (leak > options.max_leak) ++inspection->failures;
  }
  const auto warn_of_rejects = [&](const FileInspection& file) {
    const double share = static_cast<double>(file.rejects) / static_cast<double>(file.rows);
    if (share <= options.max_reject_share) return;
    inspection->warnings.push_back(absl::StrCat(
        file.path, ": ", percent(share), " of the rows are rejected; tuning stops where it is more",
        " than --max-reject-share, which is ", percent(options.max_reject_share)));
  };
  warn_of_rejects(data.data);
  if (data.validation.has_value()) warn_of_rejects(*data.validation);
}

void WarnOfBase(const InspectionOptions& options, Inspection* inspection) {
  const auto& tokenizer = inspection->tokenizer;
  std::vector<std::string>& warnings = inspection->warnings;
  if (!tokenizer.has_value()) {
    warnings.emplace_back("there is no tokenizer.json: the base can neither be tuned nor served");
    return;
  }
  if (!tokenizer->prompt_problem.empty()) {
    warnings.push_back(absl::StrCat("no prompt can be made: ", tokenizer->prompt_problem));
  }
  if (tokenizer->vocabulary_size > inspection->config.vocabulary_size) {
    warnings.push_back(absl::StrCat("the tokenizer has ", tokenizer->vocabulary_size,
                                    " tokens, the model knows ",
                                    inspection->config.vocabulary_size));
  }
  if (options.head == "token" && tokenizer->price_tokens == PriceTokenKind::kUnsupported) {
    warnings.push_back(absl::StrCat(
        "--head token: prices are not read from this tokenizer's tokens: ", tokenizer->reason));
  }
}

absl::Status CheckNames(const InspectionOptions& options) {
  if (options.head != "bins" && options.head != "token") {
    return absl::InvalidArgumentError(
        absl::StrCat("--head is ", options.head, "; expected bins or token"));
  }
  if (!options.validation.empty() && options.data.empty()) {
    return absl::InvalidArgumentError("--validation needs --data, with which it is compared");
  }
  return absl::OkStatus();
}

absl::Status CheckFiles(const InspectionOptions& options) {
  if (!options.data.empty()) RETURN_IF_ERROR(CheckFile("--data", options.data));
  if (!options.validation.empty()) RETURN_IF_ERROR(CheckFile("--validation", options.validation));
  if (options.json.empty()) return absl::OkStatus();
  RETURN_IF_ERROR(CheckOutputFile("--json", options.json));
  RETURN_IF_ERROR(CheckOtherFile("--json", options.json, "--data", options.data));
  return CheckOtherFile("--json", options.json, "--validation", options.validation);
}

}  // namespace

absl::Status InspectionOptions::Validate() const {
  // A GPU is planned for and not used.
  BaseOptions here = base;
  if (here.device == "cuda") here.device = "cpu";
  RETURN_IF_ERROR(here.Validate());
  RETURN_IF_ERROR(MakePrompt(prompt, currency).status());
  if (tokens.empty()) return absl::InvalidArgumentError("--tokens is empty");
  for (const int64_t count : tokens) {
    RETURN_IF_ERROR(CheckBounds<int64_t>("--tokens", count, 1, kMostPlannedTokens));
  }
  if (memory_budget_bytes.has_value()) {
    RETURN_IF_ERROR(CheckMemoryBudget(*memory_budget_bytes));
  }
  RETURN_IF_ERROR(ValidateLora());
  RETURN_IF_ERROR(CheckBounds("--bins", bins, 2, 4096));
  RETURN_IF_ERROR(CheckBounds<int64_t>("--prompt-tokens", prompt_tokens, 0, kMaxPromptTokens));
  RETURN_IF_ERROR(CheckBounds("--max-reject-share", max_reject_share, 0.0, 1.0));
  RETURN_IF_ERROR(CheckBounds("--max-leak", max_leak, 0.0, 1.0));
  RETURN_IF_ERROR(CheckNames(*this));
  return CheckFiles(*this);
}

absl::StatusOr<Inspection> RunInspection(const InspectionOptions& options) {
  RETURN_IF_ERROR(options.Validate());
  ASSIGN_OR_RETURN(const PromptTemplate prompt, MakePrompt(options.prompt, options.currency));
  if (options.base.threads > 0) at::set_num_threads(options.base.threads);
  ASSIGN_OR_RETURN(const BaseModel base, OpenBase(options.base, !options.data.empty()));
  Inspection inspection;
  inspection.name = base.name;
  inspection.config = base.checkpoint->config();
  ASSIGN_OR_RETURN(inspection.fingerprint, base.checkpoint->Fingerprint());
  inspection.parameters = CountParameters(inspection.config);
  ASSIGN_OR_RETURN(inspection.files, DescribeFiles(*base.checkpoint));
  if (base.tokenizer != nullptr) {
    ASSIGN_OR_RETURN(inspection.tokenizer,
                     ProbeTokenizer(*base.tokenizer, inspection.config, prompt));
  }
  if (!options.data.empty()) {
    RETURN_IF_ERROR(CheckContext(prompt, /*answer_tokens=*/0, inspection.config));
    const DataInspectionOptions data{.data = options.data,
                                     .validation = options.validation,
                                     .columns = options.columns,
                                     .csv_delimiter = options.csv_delimiter,
                                     .currency = options.currency};
    ASSIGN_OR_RETURN(inspection.data, InspectData(data, prompt, *base.tokenizer));
    WarnOfData(options, &inspection);
  }
  RETURN_IF_ERROR(PlanInspectedMemory(options, prompt, *base.checkpoint, &inspection));
  WarnOfBase(options, &inspection);
  return inspection;
}

}  // namespace pricer
