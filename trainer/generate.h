#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "model/network.h"
#include "model/tokenizer.h"
#include "trainer/inference.h"

namespace pricer {

// Longest answer that is generated, in tokens.
inline constexpr int kMaxGeneratedTokens = 8;

struct GeneratedPrice {
  std::string text;
  // The first number of the text; absent where there is none.
  std::optional<double> price;
};

// Greedy continuation of every prompt, until its first number is complete, an end token comes or
// kMaxGeneratedTokens are reached. Every token costs a forward pass over the prompts that are not
// finished, and the observer is called after each. `weights` may be null.
absl::StatusOr<std::vector<GeneratedPrice>> GeneratePrices(
    const Network& network, const AdapterWeights* weights, const Tokenizer& tokenizer,
    absl::Span<const Prompt> prompts, int64_t batch_tokens, const BatchObserver& observer);

}  // namespace pricer
