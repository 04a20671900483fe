#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "base/status_macros.h"
#include "model/adapter.h"
#include "model/cuda/device.h"
#include "model/flops.h"
#include "server/predictor.h"
#include "tests/gpu/speed.h"

// Batches of 180-token items by the server's own predictor, from tokens to price distributions.

namespace pricer::gpu {
namespace {

// A version with its tensors on the device.
struct BenchAdapter final : ModelAdapter, ModelTensors {};

constexpr int64_t kItemTokens = 180;
constexpr int64_t kAdapterRank = 16;

absl::StatusOr<std::vector<std::unique_ptr<BenchAdapter>>> MakeAdapters(const Bench& bench,
                                                                        const Network& network,
                                                                        int64_t count) {
  PeftConfig peft;
  peft.r = kAdapterRank;
  peft.alpha = 2 * kAdapterRank;
  peft.target_modules = {"all-linear"};
  std::vector<std::unique_ptr<BenchAdapter>> adapters;
  for (int64_t a = 0; a < count; ++a) {
    ASSIGN_OR_RETURN(const PeftAdapter made, MakeAdapter(peft, network.config(), kDefaultBinCount,
                                                         static_cast<uint64_t>(a)));
    auto adapter = std::make_unique<BenchAdapter>();
    adapter->key = {"bench", a + 1};
    adapter->manifest.bins = {.min_price = 1, .max_price = 1000};
    adapter->weights = CopyTo(made.weights, bench.device, at::kBFloat16);
    adapters.push_back(std::move(adapter));
  }
  return adapters;
}

struct Batch {
  std::vector<std::vector<int32_t>> prompts;
  std::vector<PredictorSequence> sequences;
};

// Items by adapter, each of them having about as many.
Batch MakeBatch(const ModelConfig& config, int64_t items, int64_t tokens,
                const std::vector<std::unique_ptr<BenchAdapter>>& adapters, size_t used) {
  Batch batch{.prompts = RandomPrompts(config, items, tokens), .sequences = {}};
  for (int64_t i = 0; i < items; ++i) {
    const size_t adapter = static_cast<size_t>(i) * used / static_cast<size_t>(items);
    batch.sequences.push_back({batch.prompts[i], adapters[adapter].get(), adapters[adapter].get()});
  }
  return batch;
}

absl::StatusOr<double> BatchSeconds(const Bench& bench, Predictor& predictor, const Batch& batch) {
  return MedianSeconds(bench, bench.part_seconds / 8, [&]() -> absl::Status {
    for (const auto& result : predictor.PredictBatch(batch.sequences)) {
      RETURN_IF_ERROR(result.status());
    }
    return absl::OkStatus();
  });
}

absl::Status MeasureResident(const Bench& bench, bool keep_nf4, double rate,
                             nlohmann::json* figures) {
  ASSIGN_OR_RETURN(const auto network,
                   Network::Random(BenchModel(bench), {.weights = WeightsKind::kNf4,
                                                       .dtype = at::kBFloat16,
                                                       .device = bench.device,
                                                       .keep_nf4 = keep_nf4}));
  const int64_t most = bench.small ? 3 : 64;
  ASSIGN_OR_RETURN(const auto adapters, MakeAdapters(bench, *network, most));
  Predictor predictor(network.get(), /*threads=*/0);
  const ModelConfig& config = network->config();
  const int64_t tokens = bench.small ? 9 : kItemTokens;
  const int64_t items = bench.small ? 6 : 128;
  cuda::TakePeakBytes(bench.device);

  const Batch full = MakeBatch(config, items, tokens, adapters, 1);
  ASSIGN_OR_RETURN(const double seconds, BatchSeconds(bench, predictor, full));
  BatchWork work;
  for (int64_t i = 0; i < items; ++i) work.Add(tokens, 1);
  LoraRanks ranks(config.layer_count);
  for (auto& layer : ranks) layer.fill(kAdapterRank);
  const double flops =
      ForwardFlops(config, ranks, {.rows = kDefaultBinCount, .trained = true}, work);
  (*figures)["items_per_second"] = static_cast<double>(items) / seconds;
  (*figures)["share_of_matmul_rate"] = flops / seconds / rate;

  const Batch mixed = MakeBatch(config, items, tokens, adapters, adapters.size());
  ASSIGN_OR_RETURN(const double mixed_seconds, BatchSeconds(bench, predictor, mixed));
  (*figures)["time_of_64_adapters_to_one"] = mixed_seconds / seconds;

  const Batch one = MakeBatch(config, 1, tokens, adapters, 1);
  ASSIGN_OR_RETURN(const double alone, BatchSeconds(bench, predictor, one));
  (*figures)["one_item_milliseconds"] = alone * 1e3;
  (*figures)["peak_gib"] = static_cast<double>(cuda::TakePeakBytes(bench.device)) / (1 << 30);
  return absl::OkStatus();
}

}  // namespace

absl::Status MeasureServing(const Bench& bench, nlohmann::json* figures) {
  ASSIGN_OR_RETURN(const double rate, MatmulRate(bench));
  (*figures)["matmul_tflops"] = rate / 1e12;
  RETURN_IF_ERROR(MeasureResident(bench, /*keep_nf4=*/false, rate, &(*figures)["bf16_resident"]));
  return MeasureResident(bench, /*keep_nf4=*/true, rate, &(*figures)["nf4_resident"]);
}

}  // namespace pricer::gpu
