#include "model/tokenizer.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "base/utf8.h"
#include "model/json_fields.h"
#include "model/tokenizer_config.h"
#include "model/tokenizer_ffi/tokenizer_ffi.h"

namespace pricer {
namespace {

constexpr absl::string_view kTokenizerFile = "/tokenizer.json";
constexpr absl::string_view kConfigFile = "/tokenizer_config.json";

PricerTokenizer* Crate(void* handle) { return static_cast<PricerTokenizer*>(handle); }

// Bytes that the crate owns.
struct CrateBytes {
  ~CrateBytes() { pricer_bytes_free(&bytes); }
  std::string ToString() const { return std::string(bytes.data, bytes.size); }
  PricerBytes bytes{nullptr, 0};
};

struct CrateEncoding {
  ~CrateEncoding() { pricer_encoding_free(&encoding); }
  const PricerToken* begin() const { return encoding.tokens; }
  const PricerToken* end() const { return encoding.tokens + encoding.size; }
  PricerEncoding encoding{nullptr, 0};
};

absl::StatusOr<std::optional<std::string>> ReadIfThere(const std::string& path) {
  absl::StatusOr<std::string> text = ReadFile(path);
  if (absl::IsNotFound(text.status())) return std::nullopt;
  RETURN_IF_ERROR(text.status());
  return *std::move(text);
}

absl::Status CheckText(absl::string_view text) {
  if (text.size() > 0xffffffff) {
    return absl::InvalidArgumentError(
        absl::StrCat("text: expected less than 4 GiB, got ", text.size(), " bytes"));
  }
  const size_t invalid = FindInvalidUtf8(text);
  if (invalid == absl::string_view::npos) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("text: expected UTF-8, got an invalid sequence at byte ", invalid));
}

absl::Status RunCrate(void* handle, absl::string_view text, bool add_special_tokens,
                      bool with_offsets, CrateEncoding* encoding) {
  RETURN_IF_ERROR(CheckText(text));
  CrateBytes error;
  if (pricer_tokenizer_encode(Crate(handle), text.data(), text.size(), add_special_tokens,
                              with_offsets, &encoding->encoding, &error.bytes)) {
    return absl::OkStatus();
  }
  return absl::InternalError(absl::StrCat("tokenizer: ", error.ToString()));
}

absl::Status AddTokens(PricerTokenizer* crate, absl::string_view tokens, bool keep_existing,
                       const std::string& source) {
  CrateBytes error;
  if (pricer_tokenizer_add_tokens(crate, tokens.data(), tokens.size(), keep_existing,
                                  &error.bytes)) {
    return absl::OkStatus();
  }
  return absl::DataLossError(absl::StrCat(source, ": ", error.ToString()));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::FromJson(absl::string_view json,
                                                               const std::string& path) {
  CrateBytes error;
  PricerTokenizer* crate = pricer_tokenizer_new(json.data(), json.size(), &error.bytes);
  if (crate == nullptr) return absl::DataLossError(absl::StrCat(path, ": ", error.ToString()));
  return std::unique_ptr<Tokenizer>(new Tokenizer(crate));
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::FromFile(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string json, ReadFile(path));
  return FromJson(json, path);
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::FromDirectory(const std::string& directory,
                                                                    int64_t model_vocabulary_size) {
  ASSIGN_OR_RETURN(std::unique_ptr<Tokenizer> tokenizer, ReadDirectory(directory));
  tokenizer->model_vocabulary_size_ = model_vocabulary_size;
  if (tokenizer->vocabulary_size() > model_vocabulary_size) {
    LogWarning("the tokenizer has tokens that the model does not know; a text with one is refused",
               {{"path", directory},
                {"tokenizer_tokens", absl::StrCat(tokenizer->vocabulary_size())},
                {"model_tokens", absl::StrCat(model_vocabulary_size)}});
  }
  return tokenizer;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::ReadDirectory(const std::string& directory) {
  const std::string path = absl::StrCat(directory, kTokenizerFile);
  const std::string config_path = absl::StrCat(directory, kConfigFile);
  TokenizerFiles files{.directory = directory};
  ASSIGN_OR_RETURN(files.tokenizer, ReadFile(path));
  ASSIGN_OR_RETURN(files.config, ReadIfThere(config_path));
  ASSIGN_OR_RETURN(files.special_tokens_map,
                   ReadIfThere(absl::StrCat(directory, "/special_tokens_map.json")));
  ASSIGN_OR_RETURN(files.added_tokens, ReadIfThere(absl::StrCat(directory, "/added_tokens.json")));
  ASSIGN_OR_RETURN(const TokenizerConfig config, ParseTokenizerConfig(files));
  std::string json = std::move(files.tokenizer);
  if (config.llama_class) {
    ASSIGN_OR_RETURN(json, AsLlamaTokenizer(json, config, path));
  }
  ASSIGN_OR_RETURN(std::unique_ptr<Tokenizer> tokenizer, FromJson(json, path));
  PricerTokenizer* crate = Crate(tokenizer->handle_);
  RETURN_IF_ERROR(AddTokens(crate, config.added_tokens, /*keep_existing=*/false, config_path));
  RETURN_IF_ERROR(AddTokens(crate, config.special_tokens, /*keep_existing=*/true, config_path));
  if (config.split_special_tokens) pricer_tokenizer_split_special_tokens(crate);
  if (!config.eos_token.empty()) {
    ASSIGN_OR_RETURN(tokenizer->end_token_, tokenizer->TokenId(config.eos_token));
  }
  return tokenizer;
}

Tokenizer::~Tokenizer() { pricer_tokenizer_free(Crate(handle_)); }

absl::StatusOr<std::vector<int32_t>> Tokenizer::Encode(absl::string_view text,
                                                       bool add_special_tokens) const {
  CrateEncoding crate;
  RETURN_IF_ERROR(RunCrate(handle_, text, add_special_tokens, /*with_offsets=*/false, &crate));
  std::vector<int32_t> ids;
  ids.reserve(crate.encoding.size);
  for (const PricerToken& token : crate) ids.push_back(static_cast<int32_t>(token.id));
  return ids;
}

absl::StatusOr<Tokenizer::Encoding> Tokenizer::EncodeWithOffsets(absl::string_view text,
                                                                 bool add_special_tokens) const {
  CrateEncoding crate;
  RETURN_IF_ERROR(RunCrate(handle_, text, add_special_tokens, /*with_offsets=*/true, &crate));
  Encoding encoding;
  for (const PricerToken& token : crate) {
    encoding.ids.push_back(static_cast<int32_t>(token.id));
    encoding.byte_offsets.emplace_back(token.begin, token.end);
    encoding.pieces.push_back(token.word);
  }
  const auto is_text = [](const PricerToken& token) { return !token.added; };
  const PricerToken* first = std::find_if(crate.begin(), crate.end(), is_text);
  encoding.leading_special = first - crate.begin();
  const PricerToken* last = crate.end();
  while (last != first && last[-1].added) --last;
  encoding.trailing_special = crate.end() - last;
  return encoding;
}

absl::StatusOr<std::string> Tokenizer::Decode(const std::vector<int32_t>& ids,
                                              bool skip_special_tokens) const {
  for (const int32_t id : ids) {
    if (id < 0) return absl::InvalidArgumentError(absl::StrCat("expected ids >= 0, got ", id));
  }
  const std::vector<uint32_t> numbers(ids.begin(), ids.end());
  CrateBytes text, error;
  if (!pricer_tokenizer_decode(Crate(handle_), numbers.data(), numbers.size(), skip_special_tokens,
                               &text.bytes, &error.bytes)) {
    return absl::InternalError(absl::StrCat("tokenizer: ", error.ToString()));
  }
  return text.ToString();
}

absl::Status Tokenizer::CheckIds(const std::vector<int32_t>& ids) const {
  const auto found = std::find_if(ids.begin(), ids.end(),
                                  [&](int32_t id) { return id >= model_vocabulary_size_; });
  if (found == ids.end()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const std::string text, Decode({*found}, /*skip_special_tokens=*/false));
  return absl::InvalidArgumentError(
      absl::StrCat("prompt: expected tokens below ", model_vocabulary_size_,
                   ", the model's vocabulary, got ", *found, ", ", Quoted(text)));
}

int64_t Tokenizer::vocabulary_size() const {
  return static_cast<int64_t>(pricer_tokenizer_vocabulary_size(Crate(handle_)));
}

absl::StatusOr<int32_t> Tokenizer::TokenId(absl::string_view token) const {
  uint32_t id = 0;
  if (pricer_tokenizer_token_id(Crate(handle_), token.data(), token.size(), &id)) {
    return static_cast<int32_t>(id);
  }
  return absl::NotFoundError(absl::StrCat("the vocabulary has no token ", Quoted(token)));
}

}  // namespace pricer
