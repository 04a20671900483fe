#include "model/tokenizer_config.h"

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/json_fields.h"

namespace pricer {
namespace {

using Json = nlohmann::json;

constexpr char kSpace[] = "\u2581";
constexpr char kExtra[] = "extra_special_tokens";
// The old name of the same list.
constexpr char kAdditional[] = "additional_special_tokens";

// A token with its properties; `value` is its spelling or an object.
absl::StatusOr<Json> AddedToken(absl::string_view source, absl::string_view field,
                                const Json& value, bool special) {
  if (value.is_string()) return AddedToken(source, field, {{"content", value}}, special);
  ASSIGN_OR_RETURN(const JsonFields token, JsonFields::Create(value, source, field));
  std::string content;
  RETURN_IF_ERROR(token.Require("content", &content));
  Json made = {{"content", content}};
  const auto property = [&](const char* name, bool otherwise) {
    bool value_of = otherwise;
    const absl::Status status = token.Get(name, &value_of);
    made[name] = value_of;
    return status;
  };
  RETURN_IF_ERROR(property("single_word", false));
  RETURN_IF_ERROR(property("lstrip", false));
  RETURN_IF_ERROR(property("rstrip", false));
  RETURN_IF_ERROR(property("special", special));
  RETURN_IF_ERROR(property("normalized", !made["special"].get<bool>()));
  return made;
}

// `added_tokens_decoder`: {"<id>": token}, in the order of the ids.
absl::StatusOr<Json> AddedTokens(const JsonFields& fields, absl::string_view source) {
  Json tokens = Json::array();
  const Json* decoder = fields.Find("added_tokens_decoder");
  if (decoder == nullptr) return tokens;
  std::map<int64_t, const Json*> by_id;
  for (const auto& [text, token] : decoder->items()) {
    int64_t id = 0;
    if (!decoder->is_object() || !absl::SimpleAtoi(text, &id)) {
      return fields.Error("added_tokens_decoder", "expected an object whose keys are ids");
    }
    by_id[id] = &token;
  }
  for (const auto& [id, token] : by_id) {
    ASSIGN_OR_RETURN(Json made, AddedToken(source, "added_tokens_decoder.", *token, false));
    tokens.push_back(std::move(made));
  }
  return tokens;
}

// Named special tokens in transformers' order, then the names that only this model has, then the
// list of others.
absl::StatusOr<Json> SpecialTokens(const Json& config, const JsonFields& fields,
                                   absl::string_view source) {
  Json tokens = Json::array();
  const auto add = [&](absl::string_view field, const Json& value) -> absl::Status {
    ASSIGN_OR_RETURN(Json made, AddedToken(source, absl::StrCat(field, "."), value, true));
    tokens.push_back(std::move(made));
    return absl::OkStatus();
  };
  constexpr absl::string_view kNames[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                          "pad_token", "cls_token", "mask_token"};
  for (const absl::string_view name : kNames) {
    if (const Json* value = fields.Find(name)) RETURN_IF_ERROR(add(name, *value));
  }
  for (const auto& [name, value] : config.items()) {
    const bool known = std::find(std::begin(kNames), std::end(kNames), name) != std::end(kNames);
    const bool token = value.is_string() || (value.is_object() && value.contains("content"));
    if (!known && token && absl::EndsWith(name, "_token")) RETURN_IF_ERROR(add(name, value));
  }
  for (const char* name : {kExtra, kAdditional}) {
    const Json* list = fields.Find(name);
    if (list == nullptr || list->empty()) continue;
    for (const Json& value : *list) RETURN_IF_ERROR(add(name, value));
    break;
  }
  return tokens;
}

absl::StatusOr<Json> ParseObject(absl::string_view text, absl::string_view source) {
  ASSIGN_OR_RETURN(Json json, ParseJson(text, source));
  RETURN_IF_ERROR(JsonFields::Create(json, source).status());
  return json;
}

// Puts what special_tokens_map.json says into the configuration.
absl::Status MergeSpecialTokensMap(const TokenizerFiles& files, Json* config) {
  if (!files.special_tokens_map) return absl::OkStatus();
  const std::string source = absl::StrCat(files.directory, "/special_tokens_map.json");
  ASSIGN_OR_RETURN(const Json map, ParseObject(*files.special_tokens_map, source));
  // The old list is renamed first, so that the map's old list does not replace it.
  if (config->value(kExtra, Json()).empty() && config->contains(kAdditional)) {
    (*config)[kExtra] = std::move((*config)[kAdditional]);
    config->erase(kAdditional);
  }
  for (const auto& [key, value] : map.items()) {
    // The class is settled by then.
    if (key == "tokenizer_class") continue;
    Json& own = (*config)[key];
    if (key == kExtra && value.is_array() && own.is_array()) {
      std::copy_if(value.begin(), value.end(), std::back_inserter(own), [&](const Json& token) {
        return std::find(own.begin(), own.end(), token) == own.end();
      });
      continue;
    }
    own = value;
    if (own.is_object() && own.contains("content")) own["special"] = true;
  }
  return absl::OkStatus();
}

// added_tokens.json: {"<token>": id}.
absl::StatusOr<Json> OldAddedTokens(const TokenizerFiles& files, const Json& special_tokens) {
  Json tokens = Json::array();
  if (!files.added_tokens) return tokens;
  const std::string source = absl::StrCat(files.directory, "/added_tokens.json");
  ASSIGN_OR_RETURN(const Json ids, ParseObject(*files.added_tokens, source));
  ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Create(ids, source));
  std::map<int64_t, std::string> by_id;
  for (const auto& [token, value] : ids.items()) {
    int64_t id = 0;
    RETURN_IF_ERROR(fields.Require(token, &id));
    by_id[id] = token;
  }
  const Json tokenizer = Json::parse(files.tokenizer, nullptr, /*allow_exceptions=*/false);
  if (tokenizer.is_object() && tokenizer.contains("added_tokens")) {
    for (const Json& token : tokenizer["added_tokens"]) {
      const auto id = token.find("id");
      if (id != token.end() && id->is_number_integer()) by_id.erase(id->get<int64_t>());
    }
  }
  for (const auto& [id, token] : by_id) {
    const bool special = std::any_of(special_tokens.begin(), special_tokens.end(),
                                     [&](const Json& other) { return other["content"] == token; });
    ASSIGN_OR_RETURN(Json made, AddedToken(source, token, Json(token), special));
    tokens.push_back(std::move(made));
  }
  return tokens;
}

}  // namespace

absl::StatusOr<TokenizerConfig> ParseTokenizerConfig(const TokenizerFiles& files) {
  const std::string source = absl::StrCat(files.directory, "/tokenizer_config.json");
  ASSIGN_OR_RETURN(Json parsed, ParseObject(files.config.value_or("{}"), source));
  const bool self_contained = parsed.contains("added_tokens_decoder");
  if (!self_contained) RETURN_IF_ERROR(MergeSpecialTokensMap(files, &parsed));
  ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Create(parsed, source));
  TokenizerConfig config;
  ASSIGN_OR_RETURN(const Json special, SpecialTokens(parsed, fields, source));
  ASSIGN_OR_RETURN(const Json added,
                   self_contained ? AddedTokens(fields, source) : OldAddedTokens(files, special));
  config.added_tokens = added.dump();
  config.special_tokens = special.dump();
  if (const Json* eos = fields.Find("eos_token")) {
    ASSIGN_OR_RETURN(const Json token, AddedToken(source, "eos_token.", *eos, true));
    config.eos_token = token.at("content").get<std::string>();
  }
  RETURN_IF_ERROR(fields.Get("split_special_tokens", &config.split_special_tokens));
  std::string name;
  RETURN_IF_ERROR(fields.Get("tokenizer_class", &name));
  config.llama_class = name == "LlamaTokenizer" || name == "LlamaTokenizerFast";
  if (!config.llama_class) return config;
  RETURN_IF_ERROR(fields.Get("legacy", &config.legacy));
  RETURN_IF_ERROR(fields.Get("add_prefix_space", &config.add_prefix_space));
  return config;
}

absl::StatusOr<std::string> AsLlamaTokenizer(const std::string& tokenizer_json,
                                             const TokenizerConfig& config,
                                             absl::string_view source) {
  if (absl::StrContains(tokenizer_json, "\"ByteLevel\"")) return tokenizer_json;
  Json json = Json::parse(tokenizer_json, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) return absl::DataLossError(absl::StrCat(source, ": not valid JSON"));
  const auto model = json.is_object() ? json.find("model") : json.end();
  if (model == json.end() || !model->is_object() || model->value("type", Json()) != "BPE") {
    return absl::DataLossError(
        absl::StrCat(source, ": expected a model of type BPE for the class LlamaTokenizer"));
  }
  *model = {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", true},
            {"byte_fallback", true},
            {"ignore_merges", false},
            {"vocab", model->value("vocab", Json())},
            {"merges", model->value("merges", Json())}};
  const char* scheme = !config.add_prefix_space ? "never" : config.legacy ? "always" : "first";
  json["normalizer"] = nullptr;
  json["pre_tokenizer"] = {
      {"type", "Metaspace"}, {"replacement", kSpace}, {"prepend_scheme", scheme}, {"split", false}};
  Json decoders = {{{"type", "Replace"}, {"pattern", {{"String", kSpace}}}, {"content", " "}},
                   {{"type", "ByteFallback"}},
                   {{"type", "Fuse"}}};
  if (config.add_prefix_space) {
    decoders.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  }
  json["decoder"] = {{"type", "Sequence"}, {"decoders", std::move(decoders)}};
  return json.dump();
}

}  // namespace pricer
