#include "trainer/inference.h"

#include <ATen/core/grad_mode.h>

#include <numeric>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/torch_status.h"
#include "trainer/sampler.h"

namespace pricer {

std::vector<std::vector<float>> RowsOf(const at::Tensor& matrix) {
  const at::Tensor contiguous = matrix.to(at::kFloat).cpu().contiguous();
  const float* data = contiguous.const_data_ptr<float>();
  std::vector<std::vector<float>> rows;
  for (int64_t row = 0; row < contiguous.size(0); ++row, data += contiguous.size(1)) {
    rows.emplace_back(data, data + contiguous.size(1));
  }
  return rows;
}

namespace {

using Adapters = absl::Span<const AdapterWeights* const>;

// Packs consecutive prompts, `first` being the index of the first of them.
absl::Status ForEachPack(
    const Network& network, const AdapterWeights* weights, absl::Span<const Prompt> prompts,
    int64_t batch_tokens,
    const std::function<absl::Status(int64_t first, const PackedBatch&, Adapters)>& run_pack) {
  std::vector<int64_t> lengths;
  for (Prompt prompt : prompts) lengths.push_back(static_cast<int64_t>(prompt.size()));
  std::vector<int64_t> order(prompts.size());
  std::iota(order.begin(), order.end(), 0);
  return CatchTorch("forward pass", [&]() -> absl::Status {
    const at::NoGradGuard no_grad;
    AdapterWeights placed;
    if (weights != nullptr) placed = network.Place(*weights);
    const AdapterWeights* const adapter = &placed;
    const Adapters adapters(&adapter, weights == nullptr ? 0 : 1);
    for (const std::vector<int64_t>& run : SplitByTokens(order, lengths, batch_tokens)) {
      std::vector<PackedSequence> sequences;
      for (int64_t index : run) {
        sequences.push_back({.ids = prompts[index], .adapter = weights == nullptr ? -1 : 0});
      }
      RETURN_IF_ERROR(run_pack(run.front(), Pack(sequences), adapters));
    }
    return absl::OkStatus();
  });
}

}  // namespace

absl::Status ForEachBatch(
    const Network& network, const AdapterWeights* weights, absl::Span<const Prompt> prompts,
    int64_t batch_tokens,
    const std::function<absl::Status(int64_t first, const at::Tensor& hidden)>& consume) {
  return ForEachPack(network, weights, prompts, batch_tokens,
                     [&](int64_t first, const PackedBatch& batch, Adapters adapters) {
                       return consume(first, network.Forward(batch, adapters));
                     });
}

absl::StatusOr<std::vector<PriceTree::Result>> ComputeTokenPrices(
    const Network& network, const AdapterWeights* weights, const PriceTokens& tokens,
    absl::Span<const Prompt> prompts, int64_t batch_tokens, const BatchObserver& observer) {
  std::vector<PriceTree::Result> prices;
  const auto run_pack = [&](int64_t first, const PackedBatch& batch,
                            Adapters adapters) -> absl::Status {
    std::vector<TokenReading> readings;
    for (int64_t b = 0; b < batch.sequence_count(); ++b) readings.push_back({b, &tokens});
    KvCache cache;
    const at::Tensor hidden = network.Forward(batch, adapters, &cache);
    absl::StatusOr<std::vector<PriceTree::Result>> results =
        ReadTokenPrices(network, hidden, adapters, readings, &cache);
    if (!results.ok()) {
      return absl::Status(
          results.status().code(),
          absl::StrCat("prompts from ", first, " on: ", results.status().message()));
    }
    prices.insert(prices.end(), results->begin(), results->end());
    return observer(static_cast<int64_t>(prices.size()));
  };
  RETURN_IF_ERROR(ForEachPack(network, weights, prompts, batch_tokens, run_pack));
  return prices;
}

double PriceMass(const PriceTree::Result& result) {
  return std::accumulate(result.prices.begin(), result.prices.end(), 0.0);
}

std::vector<float> MassesOf(const PriceTree::Result& result) {
  const double sum = PriceMass(result);
  if (!(sum > 0)) return std::vector<float>(result.prices.size(), 1.0f / kWholePriceCount);
  std::vector<float> masses;
  for (double price : result.prices) masses.push_back(static_cast<float>(price / sum));
  return masses;
}

absl::StatusOr<std::vector<std::vector<float>>> ComputeBinLogits(const Network& network,
                                                                 const AdapterWeights& weights,
                                                                 absl::Span<const Prompt> prompts,
                                                                 int64_t batch_tokens,
                                                                 const BatchObserver& observer) {
  std::vector<std::vector<float>> logits;
  const at::Tensor score = network.Place(weights.score);
  const auto consume = [&](int64_t, const at::Tensor& hidden) -> absl::Status {
    for (auto& row : RowsOf(Network::BinLogits(hidden, score))) {
      logits.push_back(std::move(row));
    }
    return observer(static_cast<int64_t>(logits.size()));
  };
  RETURN_IF_ERROR(ForEachBatch(network, &weights, prompts, batch_tokens, consume));
  return logits;
}

}  // namespace pricer
