#include "trainer/tuning_validation.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/interrupt.h"
#include "base/status_macros.h"
#include "trainer/inference.h"
#include "trainer/metrics.h"

namespace pricer {
namespace {

absl::StatusOr<Scores> ComputeScores(const Network& network, const TuningInputs& inputs,
                                     const AdapterWeights& weights, int64_t batch_tokens,
                                     const BatchObserver& observe) {
  std::vector<Prompt> prompts;
  for (const Example& example : inputs.validation.examples) prompts.push_back(example.ids);
  if (!inputs.tokens.has_value()) {
    return ComputeBinLogits(network, weights, prompts, batch_tokens, observe);
  }
  ASSIGN_OR_RETURN(
      const std::vector<PriceTree::Result> results,
      ComputeTokenPrices(network, &weights, *inputs.tokens, prompts, batch_tokens, observe));
  Scores scores;
  for (const PriceTree::Result& result : results) scores.push_back(MassesOf(result));
  return scores;
}

}  // namespace

at::Tensor ToMatrix(const Scores& scores) {
  const auto columns = static_cast<int64_t>(scores[0].size());
  at::Tensor matrix = at::empty({static_cast<int64_t>(scores.size()), columns}, at::kFloat);
  for (size_t i = 0; i < scores.size(); ++i) {
    std::copy(scores[i].begin(), scores[i].end(), matrix.data_ptr<float>() + i * columns);
  }
  return matrix;
}

Scores ToRows(const at::Tensor& matrix) {
  Scores rows;
  const float* values = matrix.const_data_ptr<float>();
  for (int64_t i = 0; i < matrix.size(0); ++i, values += matrix.size(1)) {
    rows.emplace_back(values, values + matrix.size(1));
  }
  return rows;
}

absl::StatusOr<Validation> Score(const TuningInputs& inputs, Scores scores) {
  const std::vector<Example>& examples = inputs.validation.examples;
  if (scores.size() != examples.size()) {
    return absl::DataLossError(absl::StrCat("scores of ", scores.size(), " validation items; ",
                                            examples.size(), " expected"));
  }
  const Manifest reader = inputs.Reader();
  std::vector<ScoredPrice> prices;
  for (size_t i = 0; i < examples.size(); ++i) {
    const auto distribution = reader.Distribution(scores[i]);
    if (!distribution.ok()) {
      return absl::InternalError(absl::StrCat("validation: ", distribution.status().message(),
                                              "; a lower learning rate may help"));
    }
    prices.push_back(ScoreDistribution(*distribution, /*conformal_offset=*/0.0, examples[i].price));
  }
  return Validation{.metrics = Measure(prices), .scores = std::move(scores)};
}

absl::StatusOr<Validation> Validate(const Network& network, const TuningInputs& inputs,
                                    const AdapterWeights& weights, int64_t batch_tokens) {
  const auto observe = [](int64_t) -> absl::Status {
    return InterruptRequested() ? absl::CancelledError("validation") : absl::OkStatus();
  };
  ASSIGN_OR_RETURN(Scores scores, ComputeScores(network, inputs, weights, batch_tokens, observe));
  return Score(inputs, std::move(scores));
}

}  // namespace pricer
