#include "model/gguf_tokenizer.h"

#include <nlohmann/json.hpp>
#include <unordered_set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/utf8.h"
#include "model/json_fields.h"

namespace pricer {
namespace {

using Json = nlohmann::json;

// llama.cpp's numbers of token kinds (llama_token_type).
constexpr int64_t kNormalToken = 1;
constexpr int64_t kUnknownToken = 2;
constexpr int64_t kControlToken = 3;
constexpr int64_t kUserDefinedToken = 4;

// The splitting expressions that Llama 3 and Qwen 2 publish in their own tokenizer.json.
constexpr char kLlama3Pattern[] =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr char kQwen2Pattern[] =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";

// What `tokenizer.ggml.pre` stands for.
struct SplittingRule {
  Json normalizer;
  Json pre_tokenizer;
  // A piece that is a token as a whole is that token, whether or not merges lead there.
  bool ignore_merges = false;
  // What holds where the file does not say (llama.cpp, src/llama-vocab.cpp).
  bool add_bos_token = false;
};

Json ByteLevel(bool use_regex) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", false},
          {"trim_offsets", true},
          {"use_regex", use_regex}};
}

Json Sequence(const Json& first, const Json& second) {
  return {{"type", "Sequence"}, {"pretokenizers", Json::array({first, second})}};
}

Json Split(const char* pattern) {
  return {{"type", "Split"},
          {"pattern", {{"Regex", pattern}}},
          {"behavior", "Isolated"},
          {"invert", false}};
}

absl::StatusOr<SplittingRule> RuleOf(const GgufFile& file) {
  ASSIGN_OR_RETURN(const std::string name, file.String("tokenizer.ggml.pre"));
  SplittingRule rule;
  if (name == "smollm") {
    const Json digits = {{"type", "Digits"}, {"individual_digits", true}};
    rule.pre_tokenizer = Sequence(digits, ByteLevel(true));
  } else if (name == "gpt-2") {
    rule.pre_tokenizer = ByteLevel(true);
  } else if (name == "llama-bpe" || name == "llama3" || name == "llama-v3") {
    rule.pre_tokenizer = Sequence(Split(kLlama3Pattern), ByteLevel(false));
    rule.ignore_merges = true;
    rule.add_bos_token = true;
  } else if (name == "qwen2") {
    rule.normalizer = {{"type", "NFC"}};
    rule.pre_tokenizer = Sequence(Split(kQwen2Pattern), ByteLevel(false));
  } else {
    return absl::UnimplementedError(
        absl::StrCat(file.path(), ": pre-tokenizer (key 'tokenizer.ggml.pre') ", Quoted(name),
                     " is not supported; expected smollm, llama-bpe, qwen2 or gpt-2"));
  }
  return rule;
}

struct Vocabulary {
  const std::vector<std::string>* tokens = nullptr;
  const std::vector<std::string>* merges = nullptr;
  std::vector<int64_t> kinds;
};

absl::Status CheckStrings(const GgufFile& file, absl::string_view key,
                          const std::vector<std::string>& strings) {
  std::unordered_set<std::string> seen;
  for (size_t i = 0; i < strings.size(); ++i) {
    const std::string& text = strings[i];
    const char* problem = text.empty()                ? "is empty"
                          : !IsValidUtf8(text)        ? "is no UTF-8"
                          : !seen.insert(text).second ? "is there twice"
                                                      : nullptr;
    if (problem == nullptr) continue;
    return absl::DataLossError(absl::StrCat(file.path(), ": key ", Quoted(key), ": element ", i,
                                            ", ", Quoted(text), ", ", problem));
  }
  return absl::OkStatus();
}

absl::StatusOr<Vocabulary> ReadVocabulary(const GgufFile& file) {
  ASSIGN_OR_RETURN(const std::string model, file.String("tokenizer.ggml.model"));
  if (model != "gpt2") {
    return absl::UnimplementedError(
        absl::StrCat(file.path(), ": tokenizer (key 'tokenizer.ggml.model') ", Quoted(model),
                     " is not supported; expected gpt2"));
  }
  Vocabulary vocabulary;
  ASSIGN_OR_RETURN(vocabulary.tokens, file.Strings("tokenizer.ggml.tokens"));
  ASSIGN_OR_RETURN(vocabulary.merges, file.Strings("tokenizer.ggml.merges"));
  vocabulary.kinds.assign(vocabulary.tokens->size(), kNormalToken);
  if (constexpr absl::string_view kKinds = "tokenizer.ggml.token_type"; file.Has(kKinds)) {
    ASSIGN_OR_RETURN(const std::vector<int64_t>* kinds, file.Integers(kKinds));
    vocabulary.kinds = *kinds;
  }
  RETURN_IF_ERROR(CheckStrings(file, "tokenizer.ggml.tokens", *vocabulary.tokens));
  RETURN_IF_ERROR(CheckStrings(file, "tokenizer.ggml.merges", *vocabulary.merges));
  if (vocabulary.kinds.size() != vocabulary.tokens->size()) {
    return absl::DataLossError(absl::StrCat(
        file.path(), ": key 'tokenizer.ggml.token_type': expected one number for each of ",
        vocabulary.tokens->size(), " tokens, got ", vocabulary.kinds.size()));
  }
  return vocabulary;
}

// Id of a special token where the file names one.
absl::StatusOr<std::optional<int64_t>> SpecialToken(const GgufFile& file,
                                                    const Vocabulary& vocabulary,
                                                    absl::string_view key) {
  if (!file.Has(key)) return std::nullopt;
  ASSIGN_OR_RETURN(const int64_t id, file.Integer(key));
  const int64_t count = static_cast<int64_t>(vocabulary.tokens->size());
  if (id < 0 || id >= count) {
    return absl::DataLossError(absl::StrCat(file.path(), ": key ", Quoted(key),
                                            ": expected an id below ", count, ", got ", id));
  }
  return id;
}

struct SpecialTokens {
  std::optional<int64_t> bos, eos, pad, unknown;
  bool add_bos = false;
  bool add_eos = false;
};

absl::StatusOr<bool> Flag(const GgufFile& file, absl::string_view key, bool otherwise) {
  if (!file.Has(key)) return otherwise;
  return file.Bool(key);
}

absl::StatusOr<SpecialTokens> ReadSpecialTokens(const GgufFile& file, const Vocabulary& vocabulary,
                                                const SplittingRule& rule) {
  SpecialTokens special;
  const auto read = [&](absl::string_view key) { return SpecialToken(file, vocabulary, key); };
  ASSIGN_OR_RETURN(special.bos, read("tokenizer.ggml.bos_token_id"));
  ASSIGN_OR_RETURN(special.eos, read("tokenizer.ggml.eos_token_id"));
  ASSIGN_OR_RETURN(special.pad, read("tokenizer.ggml.padding_token_id"));
  ASSIGN_OR_RETURN(special.unknown, read("tokenizer.ggml.unknown_token_id"));
  if (!special.pad) special.pad = special.eos;
  ASSIGN_OR_RETURN(special.add_bos, Flag(file, "tokenizer.ggml.add_bos_token", rule.add_bos_token));
  ASSIGN_OR_RETURN(special.add_eos, Flag(file, "tokenizer.ggml.add_eos_token", false));
  if ((special.add_bos && !special.bos) || (special.add_eos && !special.eos)) {
    return absl::DataLossError(
        absl::StrCat(file.path(), ": key 'tokenizer.ggml.", special.bos ? "eos" : "bos",
                     "_token_id' is missing, though the token is to be added to every text"));
  }
  return special;
}

Json AddedTokens(const Vocabulary& vocabulary, const SpecialTokens& special) {
  Json added = Json::array();
  for (size_t id = 0; id < vocabulary.tokens->size(); ++id) {
    const int64_t kind = vocabulary.kinds[id];
    const int64_t number = static_cast<int64_t>(id);
    const bool named = special.bos == number || special.eos == number || special.pad == number ||
                       special.unknown == number;
    const bool is_special = named || kind == kControlToken || kind == kUnknownToken;
    if (!is_special && kind != kUserDefinedToken) continue;
    added.push_back({{"id", number},
                     {"content", (*vocabulary.tokens)[id]},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", is_special}});
  }
  return added;
}

// Null where nothing is added to a text.
Json PostProcessor(const Vocabulary& vocabulary, const SpecialTokens& special) {
  if (!special.add_bos && !special.add_eos) return nullptr;
  Json used = Json::object();
  const auto token = [&](int64_t id, int type) -> Json {
    const std::string& text = (*vocabulary.tokens)[id];
    used[text] = {{"id", text}, {"ids", {id}}, {"tokens", {text}}};
    return {{"SpecialToken", {{"id", text}, {"type_id", type}}}};
  };
  const auto sequence = [&](const char* name, int type) {
    Json parts = Json::array();
    if (special.add_bos) parts.push_back(token(*special.bos, type));
    parts.push_back({{"Sequence", {{"id", name}, {"type_id", type}}}});
    if (special.add_eos) parts.push_back(token(*special.eos, type));
    return parts;
  };
  const Json single = sequence("A", 0);
  Json pair = single;
  for (const Json& part : sequence("B", 1)) pair.push_back(part);
  return {
      {"type", "TemplateProcessing"}, {"single", single}, {"pair", pair}, {"special_tokens", used}};
}

Json Model(const Vocabulary& vocabulary, bool ignore_merges) {
  Json ids = Json::object();
  for (size_t id = 0; id < vocabulary.tokens->size(); ++id) ids[(*vocabulary.tokens)[id]] = id;
  return {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token", nullptr},
          {"continuing_subword_prefix", nullptr},
          {"end_of_word_suffix", nullptr},
          {"fuse_unk", false},
          {"byte_fallback", false},
          {"ignore_merges", ignore_merges},
          {"vocab", std::move(ids)},
          {"merges", *vocabulary.merges}};
}

// tokenizer_class: the plain class takes tokenizer.json as it is; those named after models build
// their own splitting rule.
absl::StatusOr<Json> Config(const GgufFile& file, const Vocabulary& vocabulary,
                            const SpecialTokens& special) {
  Json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                 {"clean_up_tokenization_spaces", false}};
  const auto name = [&](const char* key, const std::optional<int64_t>& id) {
    if (id) config[key] = (*vocabulary.tokens)[*id];
  };
  name("bos_token", special.bos);
  name("eos_token", special.eos);
  name("pad_token", special.pad);
  name("unk_token", special.unknown);
  if (file.Has("llama.context_length")) {
    ASSIGN_OR_RETURN(config["model_max_length"], file.Integer("llama.context_length"));
  }
  constexpr absl::string_view kTemplate = "tokenizer.chat_template";
  if (file.Has(kTemplate)) {
    ASSIGN_OR_RETURN(std::string chat_template, file.String(kTemplate));
    RETURN_IF_ERROR(CheckStrings(file, kTemplate, {chat_template}));
    config["chat_template"] = std::move(chat_template);
  }
  return config;
}

}  // namespace

absl::StatusOr<GgufTokenizer> ReadGgufTokenizer(const GgufFile& file) {
  ASSIGN_OR_RETURN(const Vocabulary vocabulary, ReadVocabulary(file));
  ASSIGN_OR_RETURN(const SplittingRule rule, RuleOf(file));
  ASSIGN_OR_RETURN(const SpecialTokens special, ReadSpecialTokens(file, vocabulary, rule));
  ASSIGN_OR_RETURN(const Json config, Config(file, vocabulary, special));
  const Json tokenizer = {{"version", "1.0"},
                          {"truncation", nullptr},
                          {"padding", nullptr},
                          {"added_tokens", AddedTokens(vocabulary, special)},
                          {"normalizer", rule.normalizer},
                          {"pre_tokenizer", rule.pre_tokenizer},
                          {"post_processor", PostProcessor(vocabulary, special)},
                          {"decoder", ByteLevel(true)},
                          {"model", Model(vocabulary, rule.ignore_merges)}};
  GgufTokenizer made;
  made.tokenizer_json = tokenizer.dump(1) + "\n";
  made.tokenizer_config_json = config.dump(2) + "\n";
  made.token_count = static_cast<int64_t>(vocabulary.tokens->size());
  made.bos_token_id = special.bos;
  made.eos_token_id = special.eos;
  made.pad_token_id = special.pad;
  return made;
}

}  // namespace pricer
