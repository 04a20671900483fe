#include "trainer/inference.h"

#include <ATen/core/grad_mode.h>

#include <numeric>

#include "base/status_macros.h"
#include "model/torch_status.h"
#include "trainer/sampler.h"

namespace pricer {

std::vector<std::vector<float>> RowsOf(const at::Tensor& matrix) {
  const at::Tensor contiguous = matrix.to(at::kFloat).contiguous();
  const float* data = contiguous.const_data_ptr<float>();
  std::vector<std::vector<float>> rows;
  for (int64_t row = 0; row < contiguous.size(0); ++row, data += contiguous.size(1)) {
    rows.emplace_back(data, data + contiguous.size(1));
  }
  return rows;
}

absl::Status ForEachBatch(
    const Network& network, const AdapterWeights* weights, absl::Span<const Prompt> prompts,
    int64_t batch_tokens,
    const std::function<absl::Status(int64_t first, const at::Tensor& hidden)>& consume) {
  std::vector<int64_t> lengths;
  for (Prompt prompt : prompts) lengths.push_back(static_cast<int64_t>(prompt.size()));
  std::vector<int64_t> order(prompts.size());
  std::iota(order.begin(), order.end(), 0);
  const absl::Span<const AdapterWeights* const> adapters(&weights, weights == nullptr ? 0 : 1);
  return CatchTorch("forward pass", [&]() -> absl::Status {
    const at::NoGradGuard no_grad;
    for (const std::vector<int64_t>& run : SplitByTokens(order, lengths, batch_tokens)) {
      std::vector<PackedSequence> sequences;
      for (int64_t index : run) {
        sequences.push_back({.ids = prompts[index], .adapter = weights == nullptr ? -1 : 0});
      }
      RETURN_IF_ERROR(consume(run.front(), network.Forward(Pack(sequences), adapters)));
    }
    return absl::OkStatus();
  });
}

absl::StatusOr<std::vector<std::vector<float>>> ComputeBinLogits(const Network& network,
                                                                 const AdapterWeights& weights,
                                                                 absl::Span<const Prompt> prompts,
                                                                 int64_t batch_tokens,
                                                                 const BatchObserver& observer) {
  std::vector<std::vector<float>> logits;
  const auto consume = [&](int64_t, const at::Tensor& hidden) -> absl::Status {
    for (auto& row : RowsOf(Network::BinLogits(hidden, weights.score))) {
      logits.push_back(std::move(row));
    }
    return observer(static_cast<int64_t>(logits.size()));
  };
  RETURN_IF_ERROR(ForEachBatch(network, &weights, prompts, batch_tokens, consume));
  return logits;
}

}  // namespace pricer
