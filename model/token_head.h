#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "model/network.h"
#include "model/prompt.h"
#include "model/token_trie.h"
#include "model/tokenizer.h"

// Prices read from the base's own output head: the probabilities of the whole prices 0 to 999 as
// the tokens that follow the prompt.

namespace pricer {

// PriceTokens::Probe behind this template's prompts. Its prefix begins a line, so that the tokens
// from there on do not depend on the item.
absl::StatusOr<PriceTokens> ProbePriceTokens(const PromptTemplate& prompt,
                                             const Tokenizer& tokenizer);

// One sequence of a batch whose price is to be read.
struct TokenReading {
  int64_t sequence = 0;
  // Of its prompt's template; must outlive the call.
  const PriceTokens* tokens = nullptr;
};

// The price masses of some sequences of a batch, one result for each reading. `hidden` [B, H] is
// what network.Forward gave for `cache->batch`, whose sequences have one answer each, and
// `adapters` are those of that call. Where digits are tokens, the tree of digits behind each prompt
// is computed level by level, every node attending to the prompt's kept keys and values, its
// ancestors and itself, but for nodes with a smaller share than `prune` (token_trie.h).
// InvalidArgument where the model gives no probabilities (values that are not finite); throws
// c10::Error as ForwardNodes does. REQUIRES: readings ascend by sequence.
absl::StatusOr<std::vector<PriceTree::Result>> ReadTokenPrices(
    const Network& network, const at::Tensor& hidden,
    absl::Span<const AdapterWeights* const> adapters, absl::Span<const TokenReading> readings,
    KvCache* cache, double prune = kDefaultPrunedShare);

}  // namespace pricer
