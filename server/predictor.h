#pragma once

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "model/lora.h"
#include "model/network.h"
#include "model/price_distribution.h"
#include "model/token_head.h"
#include "server/batch_predictor.h"
#include "server/loaded_adapter.h"

namespace pricer {

// A loaded version with its tensors.
struct ModelAdapter final : LoadedAdapter {
  AdapterWeights weights;  // of the base alone: no LoRA anywhere
  // Of the token head, for the manifest's prompt; null = `weights` has a bins head.
  std::shared_ptr<const PriceTokens> tokens;
};

// One batch: tokens in, distributions out, whatever heads its rows are read by. This is where
// exceptions of tensor code end.
class Predictor final : public BatchPredictor {
 public:
  // `network` must outlive the predictor. `threads` of one forward pass; 0 = one per core.
  Predictor(const Network* network, int threads) : network_(network), threads_(threads) {}

  void PrepareThread() override;

  // One forward pass over all prompts, and one more for each digit where prices are trees of
  // digits. FailedPrecondition for an item whose prices have no mass, Internal for one whose
  // probabilities are no numbers; neither touches the others. A batch that runs out of memory is
  // computed in halves, ResourceExhausted where one does so again. Ends the process where a GPU has
  // met an error that lasts. REQUIRES: every adapter is a ModelAdapter.
  Results PredictBatch(absl::Span<const PredictorSequence> sequences) override;

 private:
  absl::StatusOr<Results> TryBatch(absl::Span<const PredictorSequence> sequences) const;
  Results Predict(absl::Span<const PredictorSequence> sequences) const;
  void ReadTokens(absl::Span<const PredictorSequence> sequences, const at::Tensor& hidden,
                  absl::Span<const AdapterWeights* const> adapters, const KvCache& cache,
                  Results* results) const;

  const Network* const network_;
  const int threads_;
};

}  // namespace pricer
