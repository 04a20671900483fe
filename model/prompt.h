#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/tokenizer.h"

namespace pricer {

inline constexpr int64_t kDefaultMaxPromptTokens = 192;

// "US dollars" and "$" for USD; otherwise the ISO code and the code with a space.
struct CurrencyWords {
  std::string unit;
  std::string symbol;
};
// InvalidArgument unless `currency` is three capital letters.
absl::StatusOr<CurrencyWords> WordsOfCurrency(absl::string_view currency);

// The only place where the question and the price prefix are written:
// `{question}\n\n{text}\n\n{prefix}`.
struct PromptTemplate {
  // "default" or "reference" (the wording of the published recipe), or "custom" where question and
  // prefix are the user's.
  std::string preset = "default";
  std::string question;
  std::string prefix;
  int64_t max_prompt_tokens = kDefaultMaxPromptTokens;

  // InvalidArgument: another name than "default" and "reference", a currency that is no code,
  // "reference" with another currency than USD.
  static absl::StatusOr<PromptTemplate> Preset(absl::string_view name, absl::string_view currency);
  // Question and prefix: UTF-8 of at most 64 KiB; the prefix is not empty and begins with no space,
  // so that it starts its own token on a new line. max_prompt_tokens: 1 to kMaxPromptTokens.
  absl::Status Validate() const;

  // The whole prompt as text, nothing cut.
  std::string Render(absl::string_view item_text) const;
};

struct EncodedPrompt {
  std::vector<int32_t> ids;
  // Whether tokens of the item text were dropped.
  bool truncated = false;
};

// Renders, tokenizes and, where the prompt is too long, cuts tokens off the end of the item text;
// question and prefix are never cut. Special tokens as the checkpoint's own tokenizer adds them.
//
// A prompt that fits is the encoding of Render(). One that does not is, of that encoding, the
// tokens that begin in front of the text and as many tokens of the text as there is room for, and
// then the tokens of "\n\n" and prefix as they follow any letter. No character is cut in two, so
// that up to three tokens of room may stay unused.
//
// Of a long text only a head is tokenized: about 16 bytes for each token of the limit, at least 16
// KiB. Cost is O(head) (the whole text is read once, to check its UTF-8), up to five times that
// where the head is one word without a place to split. The ids are those of the whole text in any
// case, up to merges over more than 16 KiB of one word.
//
// InvalidArgument: template not valid, text empty or not UTF-8, a limit that question and prefix
// alone exceed, the token for the beginning of a sequence twice, a token that the model does not
// know (Tokenizer::CheckIds). Thread-safe.
absl::StatusOr<EncodedPrompt> EncodePrompt(const PromptTemplate& prompt, const Tokenizer& tokenizer,
                                           absl::string_view item_text);

}  // namespace pricer
