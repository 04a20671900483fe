#include "trainer/inspection_report.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/units.h"

namespace pricer {
namespace {

constexpr int64_t kBarWidth = 40;

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

}  // namespace pricer
