#include "server/predictor.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <utility>

#include "model/packed_batch.h"
#include "model/torch_status.h"

namespace pricer {
namespace {

const ModelAdapter& AsModelAdapter(const LoadedAdapter* adapter) {
  return static_cast<const ModelAdapter&>(*adapter);
}

// A run of sequences of one adapter.
struct Segment {
  const ModelAdapter* adapter = nullptr;
  int64_t begin = 0;
  int64_t end = 0;
};

std::vector<Segment> SegmentsOf(absl::Span<const PredictorSequence> sequences) {
  std::vector<Segment> segments;
  for (int64_t i = 0; i < static_cast<int64_t>(sequences.size()); ++i) {
    const ModelAdapter* const adapter = &AsModelAdapter(sequences[i].adapter);
    if (segments.empty() || segments.back().adapter != adapter) segments.push_back({adapter, i, i});
    ++segments.back().end;
  }
  return segments;
}

}  // namespace

void Predictor::PrepareThread() {
  // OpenMP's number of threads belongs to the thread that starts them.
  if (threads_ > 0) at::set_num_threads(threads_);
}

Predictor::Results Predictor::PredictBatch(absl::Span<const PredictorSequence> sequences) {
  absl::StatusOr<Results> results =
      CatchTorch("batch", [&]() -> absl::StatusOr<Results> { return Predict(sequences); });
  if (results.ok()) return *std::move(results);
  return Results(sequences.size(), results.status());
}

Predictor::Results Predictor::Predict(absl::Span<const PredictorSequence> sequences) const {
  const c10::InferenceMode no_gradients;
  const std::vector<Segment> segments = SegmentsOf(sequences);
  std::vector<const AdapterWeights*> adapters;
  std::vector<PackedSequence> packed;
  packed.reserve(sequences.size());
  for (const Segment& segment : segments) {
    const auto index = static_cast<int32_t>(adapters.size());
    adapters.push_back(&segment.adapter->weights);
    for (int64_t i = segment.begin; i < segment.end; ++i) {
      packed.push_back({sequences[i].ids, index});
    }
  }
  const at::Tensor hidden = network_->Forward(Pack(packed), adapters);  // [B, H]

  Results results;
  results.reserve(sequences.size());
  for (const Segment& segment : segments) {
    const Manifest& manifest = segment.adapter->manifest;
    const at::Tensor logits =  // [segment, bins] fp32
        Network::BinLogits(hidden.slice(0, segment.begin, segment.end),
                           segment.adapter->weights.score)
            .contiguous();
    const int64_t bins = logits.size(1);
    for (int64_t row = 0; row < logits.size(0); ++row) {
      results.push_back(PriceDistribution::FromLogits(
          manifest.bins.min_price, manifest.bins.max_price,
          absl::MakeConstSpan(logits.const_data_ptr<float>() + row * bins, bins),
          manifest.temperature));
    }
  }
  return results;
}

}  // namespace pricer
