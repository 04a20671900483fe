#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "model/network.h"
#include "model/token_head.h"

// Forward passes over many prompts, without gradients.

namespace pricer {

// A prompt's ids. They must outlive the call alone.
using Prompt = absl::Span<const int32_t>;

// Called after every batch with the number of prompts done; an error ends the pass.
using BatchObserver = std::function<absl::Status(int64_t done)>;

// Calls `consume` with the hidden states [b, H] at the last tokens of consecutive prompts, `first`
// being the index of the first of them, batch after batch of at most `batch_tokens` tokens (a
// longer prompt stands alone). `weights` may be null: no adapter. REQUIRES: no prompt is empty.
absl::Status ForEachBatch(
    const Network& network, const AdapterWeights* weights, absl::Span<const Prompt> prompts,
    int64_t batch_tokens,
    const std::function<absl::Status(int64_t first, const at::Tensor& hidden)>& consume);

// [prompts][bins] logits of the adapter's bins head.
absl::StatusOr<std::vector<std::vector<float>>> ComputeBinLogits(const Network& network,
                                                                 const AdapterWeights& weights,
                                                                 absl::Span<const Prompt> prompts,
                                                                 int64_t batch_tokens,
                                                                 const BatchObserver& observer);

// The prices that the base's own head gives, as `tokens` says of the prompts' template; `weights`
// may be null.
absl::StatusOr<std::vector<PriceTree::Result>> ComputeTokenPrices(
    const Network& network, const AdapterWeights* weights, const PriceTokens& tokens,
    absl::Span<const Prompt> prompts, int64_t batch_tokens, const BatchObserver& observer);

// The masses of its prices in shares of their sum, as Manifest::Distribution takes them. A base
// that gives prices no mass at all knows nothing of them: then all are alike.
std::vector<float> MassesOf(const PriceTree::Result& result);
// The sum of the masses of its prices.
double PriceMass(const PriceTree::Result& result);

// Rows of a [b, N] fp32 tensor.
std::vector<std::vector<float>> RowsOf(const at::Tensor& matrix);

}  // namespace pricer
