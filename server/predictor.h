#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "model/lora.h"
#include "model/network.h"
#include "model/price_distribution.h"
#include "server/batch_predictor.h"
#include "server/loaded_adapter.h"

namespace pricer {

// A loaded version with its tensors.
struct ModelAdapter final : LoadedAdapter {
  AdapterWeights weights;  // with a bins head
};

// One batch: tokens in, distributions out. This is where exceptions of tensor code end.
class Predictor final : public BatchPredictor {
 public:
  // `network` must outlive the predictor. `threads` of one forward pass; 0 = one per core.
  Predictor(const Network* network, int threads) : network_(network), threads_(threads) {}

  void PrepareThread() override;

  // REQUIRES: every adapter is a ModelAdapter.
  Results PredictBatch(absl::Span<const PredictorSequence> sequences) override;

 private:
  Results Predict(absl::Span<const PredictorSequence> sequences) const;

  const Network* const network_;
  const int threads_;
};

}  // namespace pricer
