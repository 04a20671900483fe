#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace pricer {

// A checkpoint's own tokenizer: Hugging Face's `tokenizers` crate behind a C interface. Immutable;
// thread-safe.
class Tokenizer {
 public:
  // Reads tokenizer.json. NotFound, or DataLoss with the crate's reason. Truncation and padding
  // that the file asks for are left out: a call to AutoTokenizer does neither.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> FromFile(const std::string& path);
  // The tokenizer of a checkpoint directory as AutoTokenizer (transformers 5) makes it out of
  // tokenizer.json and what tokenizer_config.json (in old directories also special_tokens_map.json
  // and added_tokens.json) adds: special tokens, `split_special_tokens`, and the text splitting of
  // `LlamaTokenizer` where that is the class. Other classes keep tokenizer.json's own splitting, on
  // purpose: AutoTokenizer's GPT2Tokenizer replaces it and loses rules such as SmolLM2's for
  // digits. add_bos_token and add_eos_token count for nothing beside a tokenizer.json: its
  // post-processor says what is added. `model_vocabulary_size` is what CheckIds goes by: the rows
  // of the model's embedding. Logs a warning where the tokenizer has more tokens than that.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> FromDirectory(
      const std::string& directory,
      int64_t model_vocabulary_size = std::numeric_limits<int64_t>::max());
  ~Tokenizer();
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  // Ids of UTF-8 text, as AutoTokenizer's __call__; special tokens as the checkpoint's
  // post-processor adds them where asked for. InvalidArgument where the text is not UTF-8 or has
  // 4 GiB or more. Special tokens that the text spells out become those tokens.
  absl::StatusOr<std::vector<int32_t>> Encode(absl::string_view text,
                                              bool add_special_tokens) const;

  struct Encoding {
    std::vector<int32_t> ids;
    // The byte range of `text` that each id covers, spaces included; tokens that share a character
    // all have its range. [0, 0) for special tokens that the post-processor added.
    std::vector<std::pair<uint32_t, uint32_t>> byte_offsets;
    // The piece of text, as split before the model sees it, that each id belongs to, ascending; the
    // model looks at one piece at a time. kNoPiece for special tokens that were added.
    std::vector<uint32_t> pieces;
    // How many of the first and of the last ids were added as special tokens.
    size_t leading_special = 0;
    size_t trailing_special = 0;
  };
  static constexpr uint32_t kNoPiece = 0xffffffff;
  absl::StatusOr<Encoding> EncodeWithOffsets(absl::string_view text, bool add_special_tokens) const;

  // Text of ids. Bytes that are no UTF-8 come out as U+FFFD, ids that no token has as nothing.
  // InvalidArgument for negative ids.
  absl::StatusOr<std::string> Decode(const std::vector<int32_t>& ids,
                                     bool skip_special_tokens) const;

  // InvalidArgument names the first id that is outside of the model's vocabulary: a token that was
  // added to the tokenizer alone, which the model cannot compute with.
  absl::Status CheckIds(const std::vector<int32_t>& ids) const;

  // The eos_token that the directory's files name.
  std::optional<int32_t> end_token() const { return end_token_; }

  // With added tokens.
  int64_t vocabulary_size() const;
  // Id of a token by its exact spelling; NotFound.
  absl::StatusOr<int32_t> TokenId(absl::string_view token) const;

 private:
  explicit Tokenizer(void* handle) : handle_(handle) {}
  static absl::StatusOr<std::unique_ptr<Tokenizer>> FromJson(absl::string_view json,
                                                             const std::string& path);
  static absl::StatusOr<std::unique_ptr<Tokenizer>> ReadDirectory(const std::string& directory);
  void* handle_;
  std::optional<int32_t> end_token_;
  int64_t model_vocabulary_size_ = std::numeric_limits<int64_t>::max();
};

}  // namespace pricer
