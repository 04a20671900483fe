#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "trainer/inspection_report.h"

namespace pricer {
namespace {

using Json = nlohmann::json;

std::string ResidentName(const WeightsPlan& weights) {
  if (weights.place == WeightsPlace::kGpuInNf4) return "nf4";
  return weights.element_bytes == 2 ? "bf16" : "fp32";
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
