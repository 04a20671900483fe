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

// A loaded version, or the base.
struct ModelAdapter : LoadedAdapter {
  // Of the token head, for the manifest's prompt; null = its tensors have a bins head.
  std::shared_ptr<const PriceTokens> tokens;
};

// A version's tensors, in host memory or where the network is.
struct ModelTensors : AdapterTensors {
  AdapterWeights weights;
};

// One batch: tokens in, distributions out, whatever heads its rows are read by. This is where
// exceptions of tensor code end.
class Predictor final : public BatchPredictor {
 public:
  // `network` must outlive the predictor. `threads` of one forward pass; 0 = one per core.
  Predictor(const Network* network, int threads);

  void PrepareThread() override;

  // One forward pass over all prompts, and one more for each digit where prices are trees of
  // digits. FailedPrecondition for an item whose prices have no mass, Internal for one whose
  // probabilities are no numbers; neither touches the others. A batch that runs out of memory is
  // computed in halves, ResourceExhausted where one does so again. Ends the process where a GPU has
  // met an error that lasts. REQUIRES: every adapter is a
  // ModelAdapter, and its tensors, where it has some, are ModelTensors on the network's device.
  Results PredictBatch(absl::Span<const PredictorSequence> sequences) override;

 private:
  absl::StatusOr<Results> TryBatch(absl::Span<const PredictorSequence> sequences) const;
  Results Predict(absl::Span<const PredictorSequence> sequences) const;
  void ReadTokens(absl::Span<const PredictorSequence> sequences, const at::Tensor& hidden,
                  absl::Span<const AdapterWeights* const> adapters, const KvCache& cache,
                  Results* results) const;

  const Network* const network_;
  const int threads_;
  const AdapterWeights no_lora_;  // of what has no tensors
};

}  // namespace pricer
