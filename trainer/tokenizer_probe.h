#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/model_config.h"
#include "model/prompt.h"
#include "model/tokenizer.h"

// How a tokenizer splits prices, which decides whether a base's own head can be read as a
// distribution over them.

namespace pricer {

// How the tokens of a whole price follow from its digits.
enum class PriceTokenKind {
  kWhole,        // 0 to 999 are one token each
  kDigits,       // one token for each digit, the same one in every place
  kUnsupported,  // neither
};
absl::string_view PriceTokenKindName(PriceTokenKind kind);  // "whole", "digits", "unsupported"

struct TokenizerProbe {
  int64_t vocabulary_size = 0;
  PriceTokenKind price_tokens = PriceTokenKind::kUnsupported;
  // What stands against the two kinds, each with its first exception; empty where it is supported.
  std::string reason;

  // Of the numbers with 1, 2, 3 and 4 digits, as they follow the prompt's prefix: [digits - 1]
  // from a number of tokens to how many numbers have it.
  std::vector<std::map<int64_t, int64_t>> tokens_by_digits;
  std::vector<std::string> decimal;  // the tokens of kProbedDecimal
  // Numbers whose tokens depend on what stands before them: they join the prefix.
  int64_t joined = 0;

  // What is put around every text, as tokens are spelled.
  std::vector<std::string> leading_special;
  std::vector<std::string> trailing_special;
  // The token for the beginning of a text that config.json names, and whether prompts get it.
  std::optional<std::string> bos;
  bool adds_bos = false;
  // Why no prompt can be made; empty where one can.
  std::string prompt_problem;
};

inline constexpr absl::string_view kProbedDecimal = "149.99";

// Cost: ten thousand short texts, about a second.
absl::StatusOr<TokenizerProbe> ProbeTokenizer(const Tokenizer& tokenizer, const ModelConfig& model,
                                              const PromptTemplate& prompt);

}  // namespace pricer
