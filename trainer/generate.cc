#include "trainer/generate.h"

#include <algorithm>
#include <utility>

#include "base/status_macros.h"
#include "trainer/number_text.h"
#include "trainer/sampler.h"

namespace pricer {
namespace {

// One prompt while it grows.
struct Continuation {
  std::vector<int32_t> ids;  // prompt and answer
  size_t prompt_tokens = 0;
  GeneratedPrice result;
  bool finished = false;
};

absl::Status Append(int32_t id, const ModelConfig& config, const Tokenizer& tokenizer,
                    Continuation* continuation) {
  if (std::find(config.eos_token_ids.begin(), config.eos_token_ids.end(), id) !=
      config.eos_token_ids.end()) {
    continuation->finished = true;
    return absl::OkStatus();
  }
  continuation->ids.push_back(id);
  const std::vector<int32_t> answer(continuation->ids.begin() + continuation->prompt_tokens,
                                    continuation->ids.end());
  ASSIGN_OR_RETURN(continuation->result.text,
                   tokenizer.Decode(answer, /*skip_special_tokens=*/true));
  const FirstNumber number = FindFirstNumber(continuation->result.text);
  continuation->result.price = number.value;
  continuation->finished = number.complete || answer.size() == kMaxGeneratedTokens;
  return absl::OkStatus();
}

absl::Status AppendGreedy(const Network& network, const AdapterWeights* weights,
                          const Tokenizer& tokenizer, absl::Span<Continuation* const> active,
                          int64_t batch_tokens) {
  std::vector<Prompt> prompts;
  for (const Continuation* continuation : active) prompts.push_back(continuation->ids);
  std::vector<int64_t> chosen;
  const auto consume = [&](int64_t, const at::Tensor& hidden) -> absl::Status {
    const at::Tensor best = network.Logits(hidden).argmax(/*dim=*/-1).cpu().contiguous();
    chosen.insert(chosen.end(), best.const_data_ptr<int64_t>(),
                  best.const_data_ptr<int64_t>() + best.numel());
    return absl::OkStatus();
  };
  RETURN_IF_ERROR(ForEachBatch(network, weights, prompts, batch_tokens, consume));
  for (size_t i = 0; i < active.size(); ++i) {
    RETURN_IF_ERROR(
        Append(static_cast<int32_t>(chosen[i]), network.config(), tokenizer, active[i]));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<GeneratedPrice>> GeneratePrices(
    const Network& network, const AdapterWeights* weights, const Tokenizer& tokenizer,
    absl::Span<const Prompt> prompts, int64_t batch_tokens, const BatchObserver& observer) {
  std::vector<int64_t> lengths;
  std::vector<int64_t> order;
  for (Prompt prompt : prompts) {
    order.push_back(static_cast<int64_t>(order.size()));
    lengths.push_back(static_cast<int64_t>(prompt.size()) + kMaxGeneratedTokens);
  }
  std::vector<GeneratedPrice> prices;
  for (const std::vector<int64_t>& run : SplitByTokens(order, lengths, batch_tokens)) {
    std::vector<Continuation> batch;
    for (int64_t index : run) {
      batch.push_back({.ids = {prompts[index].begin(), prompts[index].end()},
                       .prompt_tokens = prompts[index].size(),
                       .result = {},
                       .finished = false});
    }
    while (true) {
      std::vector<Continuation*> active;
      for (Continuation& continuation : batch) {
        if (!continuation.finished) active.push_back(&continuation);
      }
      if (active.empty()) break;
      RETURN_IF_ERROR(AppendGreedy(network, weights, tokenizer, active, batch_tokens));
      RETURN_IF_ERROR(observer(static_cast<int64_t>(prices.size())));
    }
    for (Continuation& continuation : batch) prices.push_back(std::move(continuation.result));
    RETURN_IF_ERROR(observer(static_cast<int64_t>(prices.size())));
  }
  return prices;
}

}  // namespace pricer
