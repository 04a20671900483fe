#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "model/gguf.h"

namespace pricer {

// The tokenizer of a GGUF file in the form that Hugging Face's libraries read.
struct GgufTokenizer {
  std::string tokenizer_json;
  std::string tokenizer_config_json;
  int64_t token_count = 0;
  std::optional<int64_t> bos_token_id;
  std::optional<int64_t> eos_token_id;
  // The file's padding token, else its end of sequence.
  std::optional<int64_t> pad_token_id;
};

// Byte-level BPE (`tokenizer.ggml.model` = gpt2) whose `tokenizer.ggml.pre` names a splitting rule
// known here. Unimplemented names another model or rule; NotFound and InvalidArgument name a key
// that is missing or of another kind, DataLoss what contradicts itself. Without
// `tokenizer.ggml.token_type` all tokens are ordinary but those that a key names.
absl::StatusOr<GgufTokenizer> ReadGgufTokenizer(const GgufFile& file);

}  // namespace pricer
