#include "model/peft_config.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/json_fields.h"

namespace pricer {
namespace {

using Json = nlohmann::json;

constexpr int64_t kMaxRank = 65536;
// The release whose files these are: it tells PEFT which fields to expect.
constexpr absl::string_view kPeftVersion = "0.21.2";

// Keys that are read below, or that say nothing about the maths once an adapter is trained. Any
// other key must be off.
const std::set<std::string>& HarmlessKeys() {
  static const auto* keys = new std::set<std::string>{"alpha_pattern",
                                                      "auto_mapping",
                                                      "base_model_name_or_path",
                                                      "bias",
                                                      "exclude_modules",
                                                      "inference_mode",
                                                      "init_lora_weights",
                                                      "layers_pattern",
                                                      "lora_alpha",
                                                      "layers_to_transform",
                                                      "lora_dropout",
                                                      "megatron_core",
                                                      "modules_to_save",
                                                      "peft_type",
                                                      "peft_version",
                                                      "qalora_group_size",
                                                      "r",
                                                      "rank_pattern",
                                                      "revision",
                                                      "target_modules",
                                                      "task_type",
                                                      "use_rslora"};
  return *keys;
}

bool IsOff(const Json& value) {
  if (value.is_null()) return true;
  if (value.is_boolean()) return !value.get<bool>();
  return value == "" || (value.is_structured() && value.empty());
}

absl::Status Unsupported(const JsonFields& fields, absl::string_view name, absl::string_view came) {
  return fields.Error(absl::StatusCode::kUnimplemented, name,
                      absl::StrCat(came, " is not supported"));
}

absl::StatusOr<PeftTask> ReadTask(const JsonFields& fields) {
  std::string peft_type;
  RETURN_IF_ERROR(fields.Require("peft_type", &peft_type));
  if (peft_type != "LORA") {
    return Unsupported(fields, "peft_type",
                       absl::StrCat(Quoted(peft_type), ", other than 'LORA',"));
  }
  // Null where PEFT was not told; a score tensor is then refused as extra.
  std::string task = "CAUSAL_LM";
  RETURN_IF_ERROR(fields.Get("task_type", &task));
  if (task == "CAUSAL_LM") return PeftTask::kCausalLm;
  if (task == "SEQ_CLS") return PeftTask::kSeqCls;
  return Unsupported(fields, "task_type",
                     absl::StrCat(Quoted(task), ", other than 'CAUSAL_LM' and 'SEQ_CLS',"));
}

absl::Status CheckInit(const JsonFields& fields) {
  const Json* init = fields.Find("init_lora_weights");
  if (init == nullptr || init->is_boolean()) return absl::OkStatus();
  // The other kinds change the base's weights too, so that the adapter is wrong on the base as it
  // is on disk.
  if (init->is_string() && (*init == "gaussian" || *init == "orthogonal")) return absl::OkStatus();
  return Unsupported(fields, "init_lora_weights", Shown(*init));
}

absl::Status CheckModulesToSave(const JsonFields& fields, PeftTask task) {
  std::vector<std::string> modules;
  RETURN_IF_ERROR(fields.Get("modules_to_save", &modules));
  for (const std::string& module : modules) {
    const bool is_head = module == "score" || module == "classifier";
    if (task != PeftTask::kSeqCls || !is_head) {
      return Unsupported(fields, "modules_to_save", absl::StrCat("module ", Quoted(module)));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckOptions(const Json& json, const JsonFields& fields, PeftTask task) {
  std::string bias = "none";
  RETURN_IF_ERROR(fields.Get("bias", &bias));
  if (bias != "none") {
    return Unsupported(fields, "bias", absl::StrCat(Quoted(bias), ", other than 'none',"));
  }
  RETURN_IF_ERROR(CheckInit(fields));
  RETURN_IF_ERROR(CheckModulesToSave(fields, task));
  for (const auto& [key, value] : json.items()) {
    if (HarmlessKeys().count(key) > 0 || IsOff(value)) continue;
    return fields.Error(absl::StatusCode::kUnimplemented, key,
                        absl::StrCat("this option is not supported, got ", Shown(value)));
  }
  return absl::OkStatus();
}

// A string stands for a regular expression, a list for names.
absl::Status ReadModules(const JsonFields& fields, absl::string_view name,
                         std::vector<std::string>* modules, std::optional<std::string>* regex) {
  const Json* value = fields.Find(name);
  if (value == nullptr || !value->is_string()) return fields.Get(name, modules);
  modules->clear();
  *regex = value->get<std::string>();
  return absl::OkStatus();
}

// A single value stands for a list of one.
template <typename T>
absl::Status ReadList(const JsonFields& fields, absl::string_view name, std::vector<T>* list) {
  const Json* value = fields.Find(name);
  if (value == nullptr || value->is_array()) return fields.Get(name, list);
  return fields.Get(name, &list->emplace_back());
}

absl::Status ReadTargets(const JsonFields& fields, PeftConfig* config) {
  // What PEFT takes for Llama where nothing is said.
  config->target_modules = {"q_proj", "v_proj"};
  RETURN_IF_ERROR(
      ReadModules(fields, "target_modules", &config->target_modules, &config->target_regex));
  if (config->target_regex && absl::AsciiStrToLower(*config->target_regex) == kAllLinear) {
    config->target_modules = {std::string(kAllLinear)};
    config->target_regex.reset();
  }
  RETURN_IF_ERROR(
      ReadModules(fields, "exclude_modules", &config->exclude_modules, &config->exclude_regex));
  RETURN_IF_ERROR(ReadList(fields, "layers_to_transform", &config->layers_to_transform));
  return ReadList(fields, "layers_pattern", &config->layers_pattern);
}

absl::Status CheckRank(absl::string_view field, int64_t rank) {
  if (1 <= rank && rank <= kMaxRank) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("field '", field, "': expected a rank from 1 to ", kMaxRank, ", got ", rank));
}

absl::Status CheckAlpha(absl::string_view field, double alpha) {
  if (std::isfinite(alpha)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("field '", field, "': expected a finite number, got ", alpha));
}

// PEFT and its readers expect whole numbers as integers.
Json Number(double value) {
  const bool whole = value == std::floor(value) && std::abs(value) < 1e15;
  return whole ? Json(static_cast<int64_t>(value)) : Json(value);
}

Json Modules(const std::vector<std::string>& modules, const std::optional<std::string>& regex) {
  if (regex) return *regex;
  if (modules == std::vector<std::string>{std::string(kAllLinear)}) return modules[0];
  return modules;
}

template <typename T>
Json NullIfEmpty(const std::vector<T>& list) {
  return list.empty() ? Json() : Json(list);
}

}  // namespace

absl::StatusOr<PeftConfig> PeftConfig::FromJson(absl::string_view json, absl::string_view source) {
  ASSIGN_OR_RETURN(const Json value, ParseJson(json, source));
  ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Create(value, source));
  PeftConfig config;
  ASSIGN_OR_RETURN(config.task, ReadTask(fields));
  RETURN_IF_ERROR(CheckOptions(value, fields, config.task));
  RETURN_IF_ERROR(ReadTargets(fields, &config));
  RETURN_IF_ERROR(fields.Get("r", &config.r));
  RETURN_IF_ERROR(fields.Get("lora_alpha", &config.alpha));
  RETURN_IF_ERROR(fields.Get("lora_dropout", &config.dropout));
  RETURN_IF_ERROR(fields.Get("use_rslora", &config.use_rslora));
  RETURN_IF_ERROR(fields.Get("rank_pattern", &config.rank_pattern));
  RETURN_IF_ERROR(fields.Get("alpha_pattern", &config.alpha_pattern));
  RETURN_IF_ERROR(fields.Get("base_model_name_or_path", &config.base_model_name));
  if (const absl::Status status = config.Validate(); !status.ok()) {
    return absl::Status(status.code(), absl::StrCat(source, ": ", status.message()));
  }
  return config;
}

absl::Status PeftConfig::Validate() const {
  RETURN_IF_ERROR(CheckRank("r", r));
  RETURN_IF_ERROR(CheckAlpha("lora_alpha", alpha));
  for (const auto& [pattern, rank] : rank_pattern) RETURN_IF_ERROR(CheckRank("rank_pattern", rank));
  for (const auto& [pattern, value] : alpha_pattern) {
    RETURN_IF_ERROR(CheckAlpha("alpha_pattern", value));
  }
  if (!(dropout >= 0 && dropout <= 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("field 'lora_dropout': expected a number from 0 to 1, got ", dropout));
  }
  if (!target_regex && target_modules.empty()) {
    return absl::InvalidArgumentError("field 'target_modules': expected at least one, got none");
  }
  if (!layers_to_transform.empty() && target_regex) {
    return absl::InvalidArgumentError(
        "field 'layers_to_transform': cannot be used where target_modules is a regular expression");
  }
  return absl::OkStatus();
}

std::string PeftConfig::ToJson() const {
  const bool has_head = task == PeftTask::kSeqCls;
  Json alphas = Json::object();
  for (const auto& [pattern, value] : alpha_pattern) alphas[pattern] = Number(value);
  const Json json = {
      {"alora_invocation_tokens", nullptr},
      {"alpha_pattern", alphas},
      {"arrow_config", nullptr},
      {"auto_mapping", nullptr},
      {"base_model_name_or_path", base_model_name.empty() ? Json() : Json(base_model_name)},
      {"bias", "none"},
      {"corda_config", nullptr},
      {"ensure_weight_tying", false},
      {"eva_config", nullptr},
      {"exclude_modules", exclude_regex ? Json(*exclude_regex) : NullIfEmpty(exclude_modules)},
      {"fan_in_fan_out", false},
      {"inference_mode", true},
      {"init_lora_weights", true},
      {"kasa_config", nullptr},
      {"layer_replication", nullptr},
      {"layers_pattern", NullIfEmpty(layers_pattern)},
      {"layers_to_transform", NullIfEmpty(layers_to_transform)},
      {"loftq_config", Json::object()},
      {"lora_alpha", Number(alpha)},
      {"lora_bias", false},
      {"lora_dropout", dropout},
      {"lora_ga_config", nullptr},
      {"megatron_config", nullptr},
      {"megatron_core", "megatron.core"},
      {"modules_to_save", has_head ? Json::array({"classifier", "score"}) : Json()},
      {"monteclora_config", nullptr},
      {"peft_type", "LORA"},
      {"peft_version", std::string(kPeftVersion)},
      {"qalora_group_size", 16},
      {"r", r},
      {"rank_pattern", Json(rank_pattern)},
      {"revision", nullptr},
      {"target_modules", Modules(target_modules, target_regex)},
      {"target_parameters", nullptr},
      {"task_type", has_head ? "SEQ_CLS" : "CAUSAL_LM"},
      {"trainable_token_indices", nullptr},
      {"use_bdlora", nullptr},
      {"use_dora", false},
      {"use_qalora", false},
      {"use_rslora", use_rslora},
      {"velora_config", nullptr},
  };
  // Python's json writes ASCII alone.
  return json.dump(2, ' ', /*ensure_ascii=*/true, Json::error_handler_t::replace);
}

}  // namespace pricer
