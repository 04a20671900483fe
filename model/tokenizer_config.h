#pragma once

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace pricer {

// The contents of a checkpoint directory's files.
struct TokenizerFiles {
  std::string directory = "";                                    // for messages
  std::string tokenizer = "";                                    // tokenizer.json
  std::optional<std::string> config = std::nullopt;              // tokenizer_config.json
  std::optional<std::string> special_tokens_map = std::nullopt;  // special_tokens_map.json
  std::optional<std::string> added_tokens = std::nullopt;        // added_tokens.json
};

// What tokenizer_config.json says beyond tokenizer.json and changes ids, as transformers 5 reads it
// (PreTrainedTokenizerBase._from_pretrained, TokenizersBackend, LlamaTokenizer).
struct TokenizerConfig {
  // JSON arrays of tokens to add. The first replace what the tokenizer has; the special ones are
  // added where they are no added tokens yet.
  std::string added_tokens = "[]";
  std::string special_tokens = "[]";
  std::string eos_token;  // its text; empty = none is named
  bool split_special_tokens = false;
  // The class is LlamaTokenizer, which splits text in its own way, and these are its options.
  bool llama_class = false;
  bool legacy = false;
  bool add_prefix_space = true;
};

// The two older files count where tokenizer_config.json has no `added_tokens_decoder`: what
// special_tokens_map.json says replaces it, and added_tokens.json adds its tokens in the order of
// their ids, without those whose id tokenizer.json gives to another added token. InvalidArgument
// names file and field.
absl::StatusOr<TokenizerConfig> ParseTokenizerConfig(const TokenizerFiles& files);

// tokenizer.json as LlamaTokenizer reads it: vocabulary, merges, post-processor and added tokens
// are the file's, splitting and decoding its own. A byte-level file (Llama 3) stays as it is.
// DataLoss names `source`.
absl::StatusOr<std::string> AsLlamaTokenizer(const std::string& tokenizer_json,
                                             const TokenizerConfig& config,
                                             absl::string_view source);

}  // namespace pricer
