#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "model/price_distribution.h"
#include "server/loaded_adapter.h"

namespace pricer {

// One prompt of a batch. All pointers outlive the call alone.
struct PredictorSequence {
  absl::Span<const int32_t> ids;  // not empty
  const LoadedAdapter* adapter = nullptr;
  const AdapterTensors* tensors = nullptr;  // null = it has none
};

// What the batch scheduler runs. Called from one thread, the scheduler's.
class BatchPredictor {
 public:
  using Results = std::vector<absl::StatusOr<PriceDistribution>>;

  virtual ~BatchPredictor() = default;

  // Called once on the batch thread before the first batch.
  virtual void PrepareThread() {}

  // One result per sequence, in order. REQUIRES: sequences of one adapter stand together.
  virtual Results PredictBatch(absl::Span<const PredictorSequence> sequences) = 0;
};

}  // namespace pricer
