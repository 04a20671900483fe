#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/prompt.h"
#include "model/tokenizer.h"

namespace pricer {

// What the token head is trained to say behind a prompt.
struct CompletionFormat {
  // Behind the whole price, as ".00".
  std::string suffix;
  // The last token, where the end is trained too.
  std::optional<int32_t> end_token;
};

// Makes completions out of prices. Tokenizes them behind a prompt of the template, whose prefix
// begins a line, so that the tokens do not depend on the item. Thread-compatible.
class CompletionEncoder {
 public:
  // `tokenizer` must outlive the encoder. FailedPrecondition where the prompt's tokens are other
  // ones once a completion follows, so that there would be no border between the two.
  static absl::StatusOr<CompletionEncoder> Create(const PromptTemplate& prompt,
                                                  const Tokenizer& tokenizer,
                                                  const CompletionFormat& format);

  // A ready pair: the ids of `prompt`, with the special tokens that the tokenizer adds in front,
  // and those of the completion with the end token. InvalidArgument where one has no tokens, the
  // prompt's change once the completion follows, or the model does not know one.
  struct Pair {
    std::vector<int32_t> prompt;
    std::vector<int32_t> completion;
  };
  absl::StatusOr<Pair> EncodePair(const std::string& prompt, absl::string_view completion) const;

  // Of the price to the nearest whole one, of equals the even one, as Python's round.
  // InvalidArgument where that is beyond the prices that the token head reads. REQUIRES: price > 0.
  absl::StatusOr<std::vector<int32_t>> EncodePrice(double price);

 private:
  CompletionEncoder(std::string prompt, const Tokenizer* tokenizer, CompletionFormat format);

  std::string prompt_;  // some item's, as text
  const Tokenizer* tokenizer_;
  CompletionFormat format_;
  std::vector<std::vector<int32_t>> of_prices_;  // [1000]; empty = not made yet
};

}  // namespace pricer
