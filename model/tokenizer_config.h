#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace pricer {

// What tokenizer_config.json says beyond tokenizer.json and changes ids, as transformers 5 reads it
// (PreTrainedTokenizerBase._from_pretrained, TokenizersBackend, LlamaTokenizer).
struct TokenizerConfig {
  // JSON arrays of tokens to add. The first replace what the tokenizer has; the special ones are
  // added where they are no added tokens yet.
  std::string added_tokens = "[]";
  std::string special_tokens = "[]";
  bool split_special_tokens = false;
  // The class is LlamaTokenizer, which splits text in its own way, and these are its options.
  bool llama_class = false;
  bool legacy = false;
  bool add_prefix_space = true;
};

// InvalidArgument names `source` and the field.
absl::StatusOr<TokenizerConfig> ParseTokenizerConfig(absl::string_view json,
                                                     absl::string_view source);

// tokenizer.json as LlamaTokenizer reads it: vocabulary, merges, post-processor and added tokens
// are the file's, splitting and decoding its own. A byte-level file (Llama 3) stays as it is.
// DataLoss names `source`.
absl::StatusOr<std::string> AsLlamaTokenizer(const std::string& tokenizer_json,
                                             const TokenizerConfig& config,
                                             absl::string_view source);

}  // namespace pricer
