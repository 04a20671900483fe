#include "server/predictor.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdlib>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/logging.h"
#include "model/cuda/device.h"
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
  const AdapterTensors* tensors = nullptr;
  int64_t begin = 0;
  int64_t end = 0;
};

std::vector<Segment> SegmentsOf(absl::Span<const PredictorSequence> sequences) {
  std::vector<Segment> segments;
  for (int64_t i = 0; i < static_cast<int64_t>(sequences.size()); ++i) {
    const ModelAdapter* const adapter = &AsModelAdapter(sequences[i].adapter);
    const AdapterTensors* const tensors = sequences[i].tensors;
    if (segments.empty() || segments.back().adapter != adapter ||
        segments.back().tensors != tensors) {
      segments.push_back({adapter, tensors, i, i});
    }
    ++segments.back().end;
  }
  return segments;
}

const AdapterWeights& WeightsOf(const AdapterTensors& tensors) {
  return static_cast<const ModelTensors&>(tensors).weights;
}

// [segment, H]
void ReadBins(const Segment& segment, const at::Tensor& hidden, Predictor::Results* results) {
  PRICER_CHECK(segment.tensors != nullptr);
  const Manifest& manifest = segment.adapter->manifest;
  const at::Tensor logits =  // [segment, bins] fp32
      Network::BinLogits(hidden, WeightsOf(*segment.tensors).score).cpu().contiguous();
  const int64_t bins = logits.size(1);
  for (int64_t row = 0; row < logits.size(0); ++row) {
    (*results)[segment.begin + row] = manifest.Distribution(
        absl::MakeConstSpan(logits.const_data_ptr<float>() + row * bins, bins));
  }
}

absl::StatusOr<PriceDistribution> DistributionOf(const ModelAdapter& adapter,
                                                 const PriceTree::Result& result) {
  const double sum = std::accumulate(result.prices.begin(), result.prices.end(), 0.0);
  if (!(sum > 0)) {
    return absl::FailedPreconditionError(
        absl::StrCat("adapter \"", adapter.key.name, "\" version ", adapter.key.version,
                     ": gives whole prices from 0 to 999 no probability behind this item"));
  }
  // Shares, as the trainer takes them: a base that was not tuned may give prices less than a float
  // can hold.
  std::vector<float> shares;
  for (const double mass : result.prices) shares.push_back(static_cast<float>(mass / sum));
  return adapter.manifest.Distribution(shares);
}

// Nodes of the tree that were computed, but for those behind which no number ends.
int64_t TreeRows(const PriceTree::Result& result) {
  return std::count_if(result.prices.begin(), result.prices.end(),
                       [](double mass) { return mass > 0; });
}

std::vector<std::vector<LoraWeights>> NoLora(const ModelConfig& config) {
  return std::vector<std::vector<LoraWeights>>(config.layer_count,
                                               std::vector<LoraWeights>(kProjectionCount));
}

bool ReadsDigits(const ModelAdapter& adapter) {
  return adapter.tokens != nullptr && adapter.tokens->kind == PriceTokens::Kind::kDigits;
}

}  // namespace

Predictor::Predictor(const Network* network, int threads)
    : network_(network),
      threads_(threads),
      no_lora_{.layers = NoLora(network->config()), .score = {}} {}

void Predictor::PrepareThread() {
  // OpenMP's number of threads belongs to the thread that starts them.
  if (threads_ > 0) at::set_num_threads(threads_);
}

Predictor::Results Predictor::PredictBatch(absl::Span<const PredictorSequence> sequences) {
  absl::StatusOr<Results> results = TryBatch(sequences);
  if (results.ok()) return *std::move(results);
  if (!absl::IsResourceExhausted(results.status()) || sequences.size() < 2) {
    return Results(sequences.size(), results.status());
  }
  LogWarning("a batch ran out of memory and is computed in halves",
             {{"sequences", absl::StrCat(sequences.size())},
              {"reason", std::string(results.status().message())}});
  Results halves;
  for (const auto half :
       {sequences.first(sequences.size() / 2), sequences.subspan(sequences.size() / 2)}) {
    absl::StatusOr<Results> half_results = TryBatch(half);
    if (absl::IsResourceExhausted(half_results.status())) {
      half_results = absl::ResourceExhaustedError(
          absl::StrCat("out of memory even in half a batch; lower --max-batch-tokens: ",
                       half_results.status().message()));
    }
    const Results made =
        half_results.ok() ? *std::move(half_results) : Results(half.size(), half_results.status());
    halves.insert(halves.end(), made.begin(), made.end());
  }
  return halves;
}

absl::StatusOr<Predictor::Results> Predictor::TryBatch(
    absl::Span<const PredictorSequence> sequences) const {
  absl::StatusOr<Results> results =
      CatchTorch("batch", [&]() -> absl::StatusOr<Results> { return Predict(sequences); });
  if (results.ok() || absl::IsResourceExhausted(results.status())) return results;
  if (const absl::Status usable = cuda::CheckUsable(network_->device()); !usable.ok()) {
    LogError("the GPU cannot be used any more; the process ends, to be started anew",
             {{"reason", std::string(usable.message())},
              {"batch", std::string(results.status().message())}});
    std::_Exit(EXIT_FAILURE);
  }
  return results;
}

Predictor::Results Predictor::Predict(absl::Span<const PredictorSequence> sequences) const {
  const c10::InferenceMode no_gradients;
  const std::vector<Segment> segments = SegmentsOf(sequences);
  std::vector<const AdapterWeights*> adapters;
  std::vector<PackedSequence> packed;
  packed.reserve(sequences.size());
  for (const Segment& segment : segments) {
    const auto index = static_cast<int32_t>(adapters.size());
    adapters.push_back(segment.tensors == nullptr ? &no_lora_ : &WeightsOf(*segment.tensors));
    for (int64_t i = segment.begin; i < segment.end; ++i) {
      packed.push_back({sequences[i].ids, index});
    }
  }
  const bool keep = std::any_of(segments.begin(), segments.end(),
                                [](const Segment& s) { return ReadsDigits(*s.adapter); });
  const PackedBatch batch = Pack(packed);
  KvCache cache{.batch = batch, .layers = {}, .depth = 0};
  const at::Tensor hidden = keep ? network_->Forward(batch, adapters, &cache)
                                 : network_->Forward(batch, adapters);  // [B, H]

  Results results(sequences.size(), absl::InternalError("not read"));
  for (const Segment& segment : segments) {
    if (segment.adapter->tokens != nullptr) continue;
    ReadBins(segment, hidden.slice(0, segment.begin, segment.end), &results);
  }
  ReadTokens(sequences, hidden, adapters, cache, &results);
  return results;
}

void Predictor::ReadTokens(absl::Span<const PredictorSequence> sequences, const at::Tensor& hidden,
                           absl::Span<const AdapterWeights* const> adapters, const KvCache& cache,
                           Results* results) const {
  std::vector<TokenReading> readings;
  for (int64_t i = 0; i < static_cast<int64_t>(sequences.size()); ++i) {
    const ModelAdapter& adapter = AsModelAdapter(sequences[i].adapter);
    if (adapter.tokens != nullptr) readings.push_back({i, adapter.tokens.get()});
  }
  if (readings.empty()) return;
  const auto read = [&](absl::Span<const TokenReading> some) {
    KvCache nodes = cache;  // tensors are shared; only nodes are added
    return ReadTokenPrices(*network_, hidden, adapters, some, &nodes);
  };
  const auto finish = [&](const TokenReading& reading, const PriceTree::Result& result) {
    const ModelAdapter& adapter = AsModelAdapter(sequences[reading.sequence].adapter);
    if (adapter.tree_rows != nullptr) adapter.tree_rows->Add(TreeRows(result));
    (*results)[reading.sequence] = DistributionOf(adapter, result);
  };
  if (const auto all = read(readings); all.ok()) {
    for (size_t r = 0; r < readings.size(); ++r) finish(readings[r], (*all)[r]);
    return;
  }
  // Some item's values are not finite, which is no reason to fail the others.
  for (const TokenReading& reading : readings) {
    const auto alone = read({&reading, 1});
    if (alone.ok()) {
      finish(reading, (*alone)[0]);
    } else {
      (*results)[reading.sequence] =
          absl::InternalError(absl::StrCat("token head: ", alone.status().message()));
    }
  }
}

}  // namespace pricer
