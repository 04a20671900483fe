#include "trainer/tuning_validation.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/interrupt.h"
#include "base/status_macros.h"
#include "trainer/inference.h"
#include "trainer/metrics.h"
#include "trainer/sampler.h"

namespace pricer {
namespace {

// Of the validation items at these indices.
absl::StatusOr<Scores> ComputeScores(const Network& network, const TuningInputs& inputs,
                                     const AdapterWeights& weights, int64_t batch_tokens,
                                     absl::Span<const int64_t> items) {
  const auto observe = [](int64_t) -> absl::Status {
    return InterruptRequested() ? absl::CancelledError("validation") : absl::OkStatus();
  };
  std::vector<Prompt> prompts;
  for (int64_t item : items) prompts.push_back(inputs.validation.examples[item].ids);
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

// All items' scores from those of the shares, on every process.
absl::StatusOr<Scores> Gather(const absl::StatusOr<Scores>& own, absl::Span<const int64_t> items,
                              int64_t all_items, ProcessGroup* group) {
  // How many are interrupted, have failed, have scores, and the columns of these together.
  const at::Tensor verdict = at::zeros({4}, at::kLong);
  auto* const counts = verdict.mutable_data_ptr<int64_t>();
  counts[0] = absl::IsCancelled(own.status()) ? 1 : 0;
  counts[1] = own.ok() ? 0 : 1 - counts[0];
  counts[2] = own.ok() && !own->empty() ? 1 : 0;
  if (counts[2] == 1) counts[3] = static_cast<int64_t>((*own)[0].size());
  RETURN_IF_ERROR(group->Sum(verdict));
  RETURN_IF_ERROR(own.status());
  if (counts[1] > 0) {
    return absl::InternalError("validation has failed on another rank; its message says why");
  }
  if (counts[0] > 0) return absl::CancelledError("validation");
  const int64_t columns = counts[3] / counts[2];
  const at::Tensor matrix = at::zeros({all_items, columns}, at::kFloat);
  for (size_t i = 0; i < items.size(); ++i) {
    std::copy((*own)[i].begin(), (*own)[i].end(),
              matrix.mutable_data_ptr<float>() + items[i] * columns);
  }
  RETURN_IF_ERROR(group->Sum(matrix));
  return ToRows(matrix);
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
                                    const AdapterWeights& weights, int64_t batch_tokens,
                                    ProcessGroup* group) {
  const std::vector<int64_t> lengths = inputs.validation.Lengths();
  std::vector<int64_t> items(lengths.size());
  std::iota(items.begin(), items.end(), 0);
  const auto all_items = static_cast<int64_t>(items.size());
  if (group->size() > 1) items = ShareByTokens(items, lengths, group->size())[group->rank()];
  absl::StatusOr<Scores> scores = ComputeScores(network, inputs, weights, batch_tokens, items);
  if (group->size() > 1) scores = Gather(scores, items, all_items, group);
  RETURN_IF_ERROR(scores.status());
  return Score(inputs, *std::move(scores));
}

}  // namespace pricer
