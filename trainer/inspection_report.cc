#include "trainer/inspection_report.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/units.h"

namespace pricer {
namespace {

using Json = nlohmann::json;

constexpr int64_t kBarWidth = 40;

double Share(int64_t part, int64_t whole) {
  return whole == 0 ? 0.0 : static_cast<double>(part) / static_cast<double>(whole);
}

std::string PercentText(double share) { return absl::StrFormat("%.2f %%", 100 * share); }

// "134.5 M".
std::string CountText(int64_t count) {
  const auto value = static_cast<double>(count);
  if (count >= 1000000000) return absl::StrFormat("%.2f G", value / 1e9);
  if (count >= 1000000) return absl::StrFormat("%.1f M", value / 1e6);
  if (count >= 10000) return absl::StrFormat("%.1f k", value / 1e3);
  return absl::StrCat(count);
}

std::string Quoted(const std::vector<std::string>& tokens) {
  return absl::StrJoin(tokens, " ", [](std::string* out, const std::string& token) {
    absl::StrAppend(out, "\"", token, "\"");
  });
}

void AddBase(const Inspection& inspection, std::string* out) {
  const ModelConfig& config = inspection.config;
  const ParameterCounts& parameters = inspection.parameters;
  absl::StrAppendFormat(out, "base: %s\n", inspection.name);
  absl::StrAppendFormat(
      out,
      "  architecture   Llama, %d layers, hidden size %d, %d heads (%d of keys and values) of %d, "
      "MLP %d, vocabulary %d, context %d tokens\n",
      config.layer_count, config.hidden_size, config.head_count, config.kv_head_count,
      config.head_dim, config.ffn_size, config.vocabulary_size, config.context_tokens);
  absl::StrAppendFormat(out, "  parameters     %s: linears %s, embedding %s, head %s, norms %s\n",
                        CountText(parameters.total), CountText(parameters.linears),
                        CountText(parameters.embedding),
                        config.tied_embeddings ? "the embedding" : CountText(parameters.head),
                        CountText(parameters.norms));
  for (const auto& [dtype, stored] : inspection.files.stored) {
    absl::StrAppendFormat(out, "  stored         %d tensors in %s, %s\n", stored.tensors, dtype,
                          BytesText(stored.bytes));
  }
  for (const BaseFiles::File& file : inspection.files.files) {
    absl::StrAppendFormat(out, "  file           %s, %s\n", file.name, BytesText(file.bytes));
  }
  const auto found = [](const std::optional<FoundText>& text) {
    return text.has_value() ? absl::StrCat(text->text, "  (", text->file, ")")
                            : std::string("none found");
  };
  absl::StrAppendFormat(out, "  licence        %s\n", found(inspection.files.license));
  absl::StrAppendFormat(out, "  chat template  %s\n", found(inspection.files.chat_template));
  absl::StrAppendFormat(out, "  fingerprint    %s\n", inspection.fingerprint);
}

void AddTokenizer(const Inspection& inspection, std::string* out) {
  absl::StrAppend(out, "tokenizer:\n");
  if (!inspection.tokenizer.has_value()) {
    absl::StrAppend(out, "  there is no tokenizer.json\n");
    return;
  }
  const TokenizerProbe& probe = *inspection.tokenizer;
  absl::StrAppendFormat(out, "  tokens         %d\n", probe.vocabulary_size);
  for (size_t digits = 1; digits <= probe.tokens_by_digits.size(); ++digits) {
    const std::string counts = absl::StrJoin(
        probe.tokens_by_digits[digits - 1], ", ", [](std::string* text, const auto& entry) {
          absl::StrAppend(text, entry.second, " of ", entry.first,
                          entry.first == 1 ? " token" : " tokens");
        });
    absl::StrAppendFormat(out, "  numbers of %d %s %s\n", digits, digits == 1 ? "digit " : "digits",
                          counts.empty() ? "none stands by itself" : counts);
  }
  absl::StrAppendFormat(
      out, "  %-14s %s\n", kProbedDecimal,
      probe.decimal.empty() ? "joins the prompt's prefix" : Quoted(probe.decimal));
  absl::StrAppendFormat(out, "  token head     %s%s\n", PriceTokenKindName(probe.price_tokens),
                        probe.reason.empty() ? "" : absl::StrCat(": ", probe.reason));
  absl::StrAppendFormat(out, "  adds in front  %s\n",
                        probe.leading_special.empty() ? "nothing" : Quoted(probe.leading_special));
  absl::StrAppendFormat(
      out, "  adds behind    %s\n",
      probe.trailing_special.empty() ? "nothing" : Quoted(probe.trailing_special));
  absl::StrAppendFormat(out, "  begin of text  %s\n",
                        !probe.bos.has_value()
                            ? "config.json names no token"
                            : absl::StrCat("\"", *probe.bos,
                                           probe.adds_bos ? "\", which prompts get"
                                                          : "\", which prompts do not get"));
}

// "all-linear, but not up_proj, in layers 0,1".
std::string TargetsText(const PeftConfig& adapter) {
  std::string text = adapter.target_regex.has_value() ? *adapter.target_regex
                                                      : absl::StrJoin(adapter.target_modules, ",");
  if (!adapter.exclude_modules.empty()) {
    absl::StrAppend(&text, ", but not ", absl::StrJoin(adapter.exclude_modules, ","));
  }
  if (!adapter.layers_to_transform.empty()) {
    absl::StrAppend(&text, ", in layers ", absl::StrJoin(adapter.layers_to_transform, ","));
  }
  if (!adapter.rank_pattern.empty()) {
    absl::StrAppend(&text, ", ranks ",
                    absl::StrJoin(adapter.rank_pattern, ",", absl::PairFormatter("=")));
  }
  return text;
}

std::string ResidentName(const WeightsPlan& weights) {
  if (weights.place == WeightsPlace::kGpuInNf4) return "nf4";
  return weights.element_bytes == 2 ? "bf16" : "fp32";
}

void AddMemory(const Inspection& inspection, std::string* out) {
  const MemoryPlanRequest& request = inspection.memory_request;
  const MemoryPlan& plan = inspection.memory;
  const ResidentWeights& weights = plan.weights;
  absl::StrAppendFormat(
      out,
      "memory%s: linears rounded to %s, all in %s; LoRA r %d on %s; %s; prompts of %d tokens, at "
      "most "
      "%d; %d threads\n",
      request.weights.on_gpu() ? " of a GPU" : "", request.weights.weights,
      request.weights.place == WeightsPlace::kGpuInNf4 ? "bf16 but for those that stay in NF4"
      : request.weights.element_bytes == 2             ? "bf16"
                                                       : "fp32",
      request.adapter.r, TargetsText(request.adapter),
      request.bins > 0 ? absl::StrCat("a head of ", request.bins, " bins") : "the head over tokens",
      request.prompts.tokens, request.prompts.longest, request.weights.threads);
  absl::StrAppendFormat(
      out, "  weights        %s: linears %s, embedding %s, head %s, norms and positions %s\n",
      BytesText(weights.total()), BytesText(weights.linears), BytesText(weights.embedding),
      weights.head == 0 ? "the embedding" : BytesText(weights.head),
      BytesText(weights.norms + weights.rotary));
  if (weights.window > 0) {
    absl::StrAppendFormat(out, "  decoded        %s of these: two layers at a time\n",
                          BytesText(weights.window));
  }
  if (plan.workspace_bytes > 0) {
    absl::StrAppendFormat(out, "  workspace      %s of cuBLAS\n", BytesText(plan.workspace_bytes));
  }
  absl::StrAppendFormat(out, "  while loading  %s\n", BytesText(plan.load.peak_bytes));
  absl::StrAppendFormat(
      out, "  tuned          %s: adapter %s, gradients %s, moments %s, best so far %s\n",
      BytesText(plan.tuned.total()), BytesText(plan.tuned.adapter), BytesText(plan.tuned.gradients),
      BytesText(plan.tuned.moments), BytesText(plan.tuned.best));
  if (!plan.batches.empty() && !request.weights.on_gpu()) {
    absl::StrAppendFormat(out, "  for gradients  %s: linears that they go through, a second time\n",
                          BytesText(plan.batches.front().step.gradient_weight_bytes));
  }
  absl::StrAppend(
      out,
      "  batch tokens   activations     head and loss   step at most    tuning at most  "
      "serving at most\n");
  for (const MemoryPlan::Batch& batch : plan.batches) {
    const int64_t head = batch.step.head_peak_bytes - batch.step.activation_bytes;
    absl::StrAppendFormat(out, "  %-14d %-15s %-15s %-15s %-15s %s\n", batch.tokens,
                          BytesText(batch.step.activation_bytes), BytesText(head),
                          BytesText(batch.step.peak_bytes()), BytesText(batch.tuning_bytes),
                          BytesText(batch.serving_bytes));
  }
}

void AddBudget(const MemoryPlan::Budget& budget, bool on_gpu, std::string* out) {
  const auto line = [&](const char* name, const std::optional<int64_t>& tokens, int64_t least,
                        const char* option) {
    if (tokens.has_value()) {
      absl::StrAppendFormat(out, "  %-14s %s%d tokens fit: %s\n", name,
                            *tokens == kMostPlannedTokens ? "at least " : "", *tokens, option);
    } else {
      absl::StrAppendFormat(out, "  %-14s does not fit: one prompt needs %s\n", name,
                            BytesText(least));
    }
  };
  if (on_gpu) {
    absl::StrAppendFormat(out,
                          "  budget         %s for tensors; CUDA's context and what the allocator "
                          "keeps to use again come on top\n",
                          BytesText(budget.bytes));
  } else {
    absl::StrAppendFormat(out,
                          "  budget         %s, of which %s for what is planned, the rest for "
                          "allocator, program and libraries\n",
                          BytesText(budget.bytes), BytesText(budget.usable_bytes));
  }
  if (budget.tuning_tokens.has_value()) {
    line("tuning", budget.tuning_tokens, budget.least_tuning_bytes, "--micro-batch-tokens");
  }
  line(budget.tuning_tokens.has_value() ? "or at most" : "tuning", budget.recomputing_tokens,
       budget.least_tuning_bytes,
       "--micro-batch-tokens, with activations computed twice (--memory-budget of tune)");
  line("serving", budget.serving_tokens, budget.least_serving_bytes, "--max-batch-tokens");
  for (const auto& [options, bytes] : budget.instead) {
    absl::StrAppendFormat(out, "  instead        %s: tuning needs %s%s\n", options,
                          BytesText(bytes),
                          bytes > budget.usable_bytes ? ", too much as well" : "");
  }
  if (!budget.recomputing_tokens.has_value() && budget.instead.empty()) {
    absl::StrAppend(out, "  instead        a smaller base, or a larger budget\n");
  }
}

std::string SpreadText(const Spread& spread, const char* number) {
  const auto format = absl::ParsedFormat<'f'>::New(number);
  const auto text = [&](double value) { return absl::StrFormat(*format, value); };
  return absl::StrCat("min ", text(spread.min), ", median ", text(spread.median), ", p90 ",
                      text(spread.p90), ", p99 ", text(spread.p99), ", max ", text(spread.max));
}

void AddFile(const char* name, const FileInspection& file, std::string* out) {
  absl::StrAppendFormat(out, "%s: %s\n", name, file.path);
  absl::StrAppendFormat(out, "  rows           %d: %d items, %d rejected\n", file.rows, file.items,
                        file.rejects);
  for (const FileInspection::RejectedRow& rejected : file.first_rejects) {
    absl::StrAppendFormat(out, "    row %d: %s%s%s\n", rejected.row, rejected.reject.field,
                          rejected.reject.field.empty() ? "" : ": ", rejected.reject.reason);
  }
  absl::StrAppendFormat(out, "  prompt tokens  %s; %d in all\n", SpreadText(file.tokens, "%.0f"),
                        file.total_tokens);
  absl::StrAppendFormat(out, "  truncated      %s (%d items)\n",
                        PercentText(Share(file.truncated, file.items)), file.truncated);
  absl::StrAppend(out, "  missing        ",
                  absl::StrJoin(file.missing, ", ",
                                [&](std::string* text, const auto& field) {
                                  absl::StrAppend(text, field.first, " ",
                                                  PercentText(Share(field.second, file.items)));
                                }),
                  "\n");
  absl::StrAppendFormat(out, "  prices         %s\n", SpreadText(file.prices, "%.2f"));
  int64_t most = 1;
  for (const PriceBar& bar : file.price_bars) most = std::max(most, bar.items);
  for (const PriceBar& bar : file.price_bars) {
    // A bar that is not empty is seen.
    const int64_t length = (bar.items * kBarWidth + most - 1) / most;
    absl::StrAppendFormat(out, "    %10.6g to %-10.6g %8d %s\n", bar.low, bar.high, bar.items,
                          std::string(static_cast<size_t>(length), '#'));
  }
}

void AddDuplicates(const DataInspection& data, std::string* out) {
  const auto add = [&](const char* name, const DuplicateCounts& counts, int64_t rows) {
    absl::StrAppendFormat(out, "  %-14s %s: %d equal, %d nearly so\n", name,
                          PercentText(Share(counts.total(), rows)), counts.exact, counts.near);
    const auto pairs = [&](const char* kind, const std::vector<DuplicatePair>& first) {
      for (const DuplicatePair& pair : first) {
        absl::StrAppendFormat(out, "    row %d %s row %d\n", pair.row, kind, pair.other_row);
      }
    };
    pairs("equals", counts.first_exact);
    pairs("is near", counts.first_near);
  };
  absl::StrAppendFormat(
      out,
      "duplicates: equal = the same words; near = Jaccard similarity of %d-word runs at least %g, "
      "estimated by MinHash (%d hashes, bands of %d)\n",
      kShingleWords, kNearSimilarity, kMinHashes, kBandRows);
  add("in the data", data.duplicates.training, data.data.items);
  if (data.validation.has_value()) {
    add("leak", data.duplicates.leak, data.validation->items);
    absl::StrAppend(out, "    (rows of the validation that the data has too)\n");
  }
}

Json OptionalJson(const std::optional<FoundText>& found) {
  if (!found.has_value()) return nullptr;
  return {{"text", found->text}, {"file", found->file}};
}

template <typename Number>
Json OptionalJson(const std::optional<Number>& number) {
  return number.has_value() ? Json(*number) : Json(nullptr);
}

Json BaseJson(const Inspection& inspection) {
  const ParameterCounts& parameters = inspection.parameters;
  Json stored = Json::object();
  for (const auto& [dtype, kind] : inspection.files.stored) {
    stored[dtype] = {{"tensors", kind.tensors}, {"bytes", kind.bytes}};
  }
  Json files = Json::object();
  for (const BaseFiles::File& file : inspection.files.files) files[file.name] = file.bytes;
  return {{"name", inspection.name},
          {"fingerprint", inspection.fingerprint},
          {"architecture", Json::parse(inspection.config.ArchitectureJson())},
          {"parameters",
           {{"total", parameters.total},
            {"linears", parameters.linears},
            {"embedding", parameters.embedding},
            {"head", parameters.head},
            {"norms", parameters.norms}}},
          {"tensors", stored},
          {"files", files},
          {"license", OptionalJson(inspection.files.license)},
          {"chat_template", OptionalJson(inspection.files.chat_template)}};
}

Json TokenizerJson(const Inspection& inspection) {
  if (!inspection.tokenizer.has_value()) return nullptr;
  const TokenizerProbe& probe = *inspection.tokenizer;
  Json numbers = Json::object();
  for (size_t digits = 1; digits <= probe.tokens_by_digits.size(); ++digits) {
    Json& counts = numbers[absl::StrCat(digits, "_digits")] = Json::object();
    for (const auto& [tokens, count] : probe.tokens_by_digits[digits - 1]) {
      counts[absl::StrCat(tokens)] = count;
    }
  }
  return {{"tokens", probe.vocabulary_size},
          {"token_head", std::string(PriceTokenKindName(probe.price_tokens))},
          {"reason", probe.reason.empty() ? Json(nullptr) : Json(probe.reason)},
          {"numbers_by_tokens", numbers},
          {"numbers_joined_to_the_prefix", probe.joined},
          {std::string(kProbedDecimal), probe.decimal},
          {"adds_in_front", probe.leading_special},
          {"adds_behind", probe.trailing_special},
          {"bos", OptionalJson(probe.bos)},
          {"adds_bos", probe.adds_bos},
          {"prompt_problem",
           probe.prompt_problem.empty() ? Json(nullptr) : Json(probe.prompt_problem)}};
}

Json BatchJson(const MemoryPlan::Batch& batch) {
  return {{"tokens", batch.tokens},
          {"activations", batch.step.activation_bytes},
          {"forward_peak", batch.step.forward_peak_bytes},
          {"head_peak", batch.step.head_peak_bytes},
          {"backward_peak", batch.step.backward_peak_bytes},
          {"forward_without_gradients", batch.forward_bytes},
          {"tuning", batch.tuning_bytes},
          {"serving", batch.serving_bytes}};
}

Json BudgetJson(const MemoryPlan::Budget& budget) {
  Json instead = Json::array();
  for (const auto& [options, bytes] : budget.instead) {
    instead.push_back({{"options", options}, {"tuning", bytes}});
  }
  return {{"bytes", budget.bytes},
          {"usable", budget.usable_bytes},
          {"tuning_tokens", OptionalJson(budget.tuning_tokens)},
          {"recomputing_tokens", OptionalJson(budget.recomputing_tokens)},
          {"serving_tokens", OptionalJson(budget.serving_tokens)},
          {"least_tuning", budget.least_tuning_bytes},
          {"least_serving", budget.least_serving_bytes},
          {"instead", instead}};
}

Json MemoryJson(const Inspection& inspection) {
  const MemoryPlanRequest& request = inspection.memory_request;
  const MemoryPlan& plan = inspection.memory;
  Json batches = Json::array();
  for (const MemoryPlan::Batch& batch : plan.batches) batches.push_back(BatchJson(batch));
  return {{"of",
           {{"weights", request.weights.weights},
            {"dtype", request.weights.element_bytes == 2 ? "bf16" : "fp32"},
            {"device", request.weights.on_gpu() ? "cuda" : "cpu"},
            {"resident", ResidentName(request.weights)},
            {"threads", request.weights.threads},
            {"lora_r", request.adapter.r},
            {"lora_dropout", request.adapter.dropout},
            {"target_modules", request.adapter.target_modules},
            {"target_regex", request.adapter.target_regex.value_or("")},
            {"exclude_modules", request.adapter.exclude_modules},
            {"lora_layers", request.adapter.layers_to_transform},
            {"rank_pattern", Json(request.adapter.rank_pattern)},
            {"bins", request.bins},
            {"prompt_tokens", request.prompts.tokens},
            {"longest_prompt_tokens", request.prompts.longest},
            {"answer_tokens", request.prompts.answers}}},
          {"weights",
           {{"total", plan.weights.total()},
            {"linears", plan.weights.linears},
            {"window", plan.weights.window},
            {"embedding", plan.weights.embedding},
            {"head", plan.weights.head},
            {"norms", plan.weights.norms},
            {"positions", plan.weights.rotary}}},
          {"workspace", plan.workspace_bytes},
          {"loading_peak", plan.load.peak_bytes},
          {"tuned",
           {{"total", plan.tuned.total()},
            {"adapter", plan.tuned.adapter},
            {"gradients", plan.tuned.gradients},
            {"moments", plan.tuned.moments},
            {"best", plan.tuned.best}}},
          {"gradient_weights",
           plan.batches.empty() ? 0 : plan.batches.front().step.gradient_weight_bytes},
          {"batches", batches},
          {"budget", plan.budget.has_value() ? BudgetJson(*plan.budget) : Json(nullptr)}};
}

Json SpreadJson(const Spread& spread) {
  return {{"min", spread.min},
          {"median", spread.median},
          {"p90", spread.p90},
          {"p99", spread.p99},
          {"max", spread.max}};
}

Json FileJson(const FileInspection& file) {
  Json rejects = Json::array();
  for (const FileInspection::RejectedRow& rejected : file.first_rejects) {
    rejects.push_back({{"row", rejected.row},
                       {"field", rejected.reject.field},
                       {"reason", rejected.reject.reason}});
  }
  Json bars = Json::array();
  for (const PriceBar& bar : file.price_bars) {
    bars.push_back({{"low", bar.low}, {"high", bar.high}, {"items", bar.items}});
  }
  Json missing = Json::object();
  for (const auto& [field, items] : file.missing) missing[field] = Share(items, file.items);
  return {{"path", file.path},
          {"rows", file.rows},
          {"items", file.items},
          {"rejects", file.rejects},
          {"first_rejects", rejects},
          {"tokens", SpreadJson(file.tokens)},
          {"total_tokens", file.total_tokens},
          {"truncated", Share(file.truncated, file.items)},
          {"prices", SpreadJson(file.prices)},
          {"price_bars", bars},
          {"missing", missing}};
}

Json DuplicatesJson(const DuplicateCounts& counts, int64_t rows) {
  const auto pairs = [](const std::vector<DuplicatePair>& first) {
    Json json = Json::array();
    for (const DuplicatePair& pair : first) json.push_back({pair.row, pair.other_row});
    return json;
  };
  return {{"equal", counts.exact},
          {"near", counts.near},
          {"share", Share(counts.total(), rows)},
          {"first_equal", pairs(counts.first_exact)},
          {"first_near", pairs(counts.first_near)}};
}

Json DataJson(const DataInspection& data) {
  Json json = {{"data", FileJson(data.data)},
               {"validation", nullptr},
               {"duplicates",
                {{"method",
                  {{"words_of_a_run", kShingleWords},
                   {"similarity", kNearSimilarity},
                   {"hashes", kMinHashes},
                   {"hashes_of_a_band", kBandRows}}},
                 {"data", DuplicatesJson(data.duplicates.training, data.data.items)},
                 {"leak", nullptr}}}};
  if (!data.validation.has_value()) return json;
  json["validation"] = FileJson(*data.validation);
  json["duplicates"]["leak"] = DuplicatesJson(data.duplicates.leak, data.validation->items);
  return json;
}

}  // namespace

std::string InspectionText(const Inspection& inspection) {
  std::string text;
  AddBase(inspection, &text);
  AddTokenizer(inspection, &text);
  AddMemory(inspection, &text);
  if (inspection.memory.budget.has_value()) {
    AddBudget(*inspection.memory.budget, inspection.memory_request.weights.on_gpu(), &text);
  }
  if (inspection.data.has_value()) {
    AddFile("data", inspection.data->data, &text);
    if (inspection.data->validation.has_value()) {
      AddFile("validation", *inspection.data->validation, &text);
    }
    AddDuplicates(*inspection.data, &text);
  }
  for (size_t i = 0; i < inspection.warnings.size(); ++i) {
    const bool fails = static_cast<int64_t>(i) < inspection.failures;
    absl::StrAppend(&text, fails ? "error: " : "warning: ", inspection.warnings[i], "\n");
  }
  return text;
}

std::string InspectionJson(const Inspection& inspection) {
  const Json json = {
      {"base", BaseJson(inspection)},
      {"tokenizer", TokenizerJson(inspection)},
      {"memory", MemoryJson(inspection)},
      {"data", inspection.data.has_value() ? DataJson(*inspection.data) : Json(nullptr)},
      {"warnings", inspection.warnings},
      {"failures", inspection.failures}};
  // Bytes of a broken token are no UTF-8.
  return json.dump(2, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace) + "\n";
}

}  // namespace pricer
