#include "model/network.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/status_macros.h"
#include "model/cuda/device.h"
#include "model/layers/device_linear.h"
#include "model/layers/recomputed_layer.h"
#include "model/ops/lora_linear.h"
#include "model/ops/rms_norm.h"
#include "model/torch_status.h"

namespace pricer {
namespace {

// Runs of neighbouring sequences that use the same adapter, as rows of tokens and of answers.
void FillSegments(const PackedBatch& batch, absl::Span<const AdapterWeights* const> adapters,
                  ForwardContext& context) {
  const int64_t count = batch.sequence_count();
  for (int64_t begin = 0; begin < count;) {
    int64_t end = begin + 1;
    while (end < count && batch.adapter[end] == batch.adapter[begin]) ++end;
    if (batch.adapter[begin] >= 0) {
      const AdapterWeights* adapter = adapters[batch.adapter[begin]];
      context.tokens.segments.push_back({batch.offsets[begin], batch.offsets[end], adapter});
      context.answers.segments.push_back(
          {batch.answer_offsets[begin], batch.answer_offsets[end], adapter});
    }
    begin = end;
  }
}

// Positions index the rotary table, which ends with the context.
void CheckLengths(const PackedBatch& batch, int64_t limit) {
  for (int64_t b = 0; b < batch.sequence_count(); ++b) {
    const int64_t tokens = batch.offsets[b + 1] - batch.offsets[b];
    TORCH_CHECK(tokens <= limit, "a prompt has ", tokens, " tokens; the base's context has ",
                limit);
  }
}

// What lies on the CPU, where the network computes.
at::Tensor PlaceOn(const at::Tensor& tensor, at::Device device) {
  return cuda::RunsOn(device) ? cuda::Upload(tensor, device) : tensor;
}

at::Tensor AnswerTokens(const PackedBatch& batch) {
  at::Tensor tokens = at::empty({batch.answer_count()}, at::kLong);
  auto* token = tokens.mutable_data_ptr<int64_t>();
  for (int64_t b = 0; b < batch.sequence_count(); ++b) {
    const int64_t answers = batch.answer_offsets[b + 1] - batch.answer_offsets[b];
    std::iota(token, token + answers, batch.offsets[b + 1] - answers);
    token += answers;
  }
  return tokens;
}

void FillDropout(const PackedBatch& batch, const LoraDropout& dropout,
                 const at::Tensor& answer_tokens, at::Device device, ForwardContext& context) {
  TORCH_CHECK(static_cast<int64_t>(dropout.rows.size()) == batch.sequence_count(), "dropout names ",
              dropout.rows.size(), " rows of ", batch.sequence_count());
  context.tokens.dropout = {
      .probability = dropout.probability, .seed = dropout.seed, .step = dropout.step};
  context.answers.dropout = context.tokens.dropout;
  at::Tensor rows = at::zeros_like(batch.positions);
  auto* row = rows.mutable_data_ptr<int64_t>();
  for (int64_t b = 0; b < batch.sequence_count(); ++b) {
    std::fill(row + batch.offsets[b], row + batch.offsets[b + 1], dropout.rows[b]);
  }
  context.tokens.rows = {PlaceOn(rows, device), context.layout.positions};
  context.answers.rows = {PlaceOn(rows.index_select(0, answer_tokens), device),
                          context.layout.answer_positions};
}

ForwardContext MakeContext(const PackedBatch& batch,
                           absl::Span<const AdapterWeights* const> adapters,
                           const RotaryTable& rotary, const LoraDropout* dropout) {
  const at::Device device = rotary.cos.device();
  const at::Tensor answer_tokens = AnswerTokens(batch);
  ForwardContext context;
  context.answer_tokens = PlaceOn(answer_tokens, device);
  context.layout.positions = PlaceOn(batch.positions, device);
  context.layout.answer_positions = PlaceOn(batch.positions.index_select(0, answer_tokens), device);
  context.layout.offsets = batch.offsets;
  context.layout.answer_offsets = batch.answer_offsets;
  if (cuda::RunsOn(device)) {
    const auto offsets = [&](const std::vector<int64_t>& values) {
      return cuda::Upload(at::tensor(values, at::kLong).to(at::kInt), device);
    };
    context.layout.device_offsets = offsets(batch.offsets);
    context.layout.device_answer_offsets = offsets(batch.answer_offsets);
  }
  context.rotary = &rotary;
  FillSegments(batch, adapters, context);
  if (dropout != nullptr && dropout->probability > 0) {
    FillDropout(batch, *dropout, answer_tokens, device, context);
  }
  return context;
}

NodeContext MakeNodeContext(const NodeLevel& nodes, const KvCache& cache,
                            absl::Span<const AdapterWeights* const> adapters,
                            const RotaryTable& rotary) {
  const int64_t limit = rotary.cos.size(0);
  const PackedBatch& batch = cache.batch;
  TORCH_CHECK(static_cast<int64_t>(nodes.ancestors.size()) == cache.depth, "nodes of depth ",
              nodes.ancestors.size() + 1, " behind nodes of depth ", cache.depth);
  NodeContext context;
  context.rotary = &rotary;
  context.prompt_offsets = batch.offsets;
  context.node_offsets = nodes.offsets;
  std::vector<int64_t> positions(nodes.ids.size());
  for (int64_t b = 0; b < batch.sequence_count(); ++b) {
    const int64_t position = batch.offsets[b + 1] - batch.offsets[b] + cache.depth;
    const int64_t begin = nodes.offsets[b];
    const int64_t end = nodes.offsets[b + 1];
    TORCH_CHECK(begin == end || position < limit, "a token stands at place ", position + 1,
                "; the base's context has ", limit);
    std::fill(positions.begin() + begin, positions.begin() + end, position);
    if (batch.adapter[b] < 0 || begin == end) continue;
    const AdapterWeights* const adapter = adapters[batch.adapter[b]];
    std::vector<AdapterSegment>& segments = context.rows.segments;
    const bool joins =
        !segments.empty() && segments.back().adapter == adapter && segments.back().end == begin;
    if (joins) {
      segments.back().end = end;
    } else {
      segments.push_back({begin, end, adapter});
    }
  }
  const at::Device device = rotary.cos.device();
  context.positions = PlaceOn(at::tensor(positions, at::kLong), device);
  for (const std::vector<int64_t>& rows : nodes.ancestors) {
    context.ancestors.push_back(PlaceOn(at::tensor(rows, at::kLong), device));
  }
  return context;
}

// Every layer by ATen's intra-op threads, since quantizing takes most of the time.
absl::StatusOr<std::vector<DecoderLayer>> LoadLayers(const Checkpoint& checkpoint,
                                                     const NetworkOptions& options,
                                                     WeightWindow* window,
                                                     const std::function<bool()>& stop) {
  const int64_t count = checkpoint.config().layer_count;
  std::vector<absl::StatusOr<DecoderLayer>> loaded(count, absl::UnknownError("not loaded"));
  at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t layer = begin; layer < end; ++layer) {
      const bool stopped = stop && stop();
      loaded[layer] = stopped ? absl::CancelledError("loading the base")
                              : DecoderLayer::Load(checkpoint, options, layer, window);
    }
  });
  std::vector<DecoderLayer> layers;
  for (absl::StatusOr<DecoderLayer>& layer : loaded) {
    RETURN_IF_ERROR(layer.status());
    layers.push_back(*std::move(layer));
  }
  return layers;
}

// A head that is stored as a matrix is never quantized; bitsandbytes leaves it so unless told
// otherwise.
absl::StatusOr<at::Tensor> LoadHead(const Checkpoint& checkpoint, const NetworkOptions& options,
                                    const at::Tensor& embedding) {
  if (checkpoint.config().tied_embeddings) return embedding;
  if (cuda::RunsOn(options.device) && checkpoint.IsNf4("lm_head")) {
    std::vector<DeviceLinear> head(1);
    ASSIGN_OR_RETURN(head[0], LoadDeviceLinear(checkpoint, "lm_head", options));
    return StackDecoded(head, options);
  }
  if (checkpoint.IsNf4("lm_head")) return LoadLinearWeight(checkpoint, "lm_head", options);
  return ToTensor(checkpoint.tensor("lm_head.weight"), options.device).to(options.dtype);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Network>> Network::Load(const Checkpoint& checkpoint,
                                                       const NetworkOptions& options,
                                                       const std::function<bool()>& stop) {
  using Result = absl::StatusOr<std::unique_ptr<Network>>;
  return CatchTorch(checkpoint.directory(), [&]() -> Result {
    const at::NoGradGuard no_grad;
    auto network = std::unique_ptr<Network>(new Network);
    network->config_ = checkpoint.config();
    network->options_ = options;
    const auto tensor = [&](absl::string_view name) {
      return ToTensor(checkpoint.tensor(name), options.device).to(options.dtype);
    };
    network->embedding_ = tensor("model.embed_tokens.weight");
    ASSIGN_OR_RETURN(network->head_, LoadHead(checkpoint, options, network->embedding_));
    network->final_norm_ = tensor("model.norm.weight");
    network->PlaceRotaryTable();
    network->MakeWindow();
    ASSIGN_OR_RETURN(network->layers_,
                     LoadLayers(checkpoint, options, network->window_.get(), stop));
    return network;
  });
}

absl::StatusOr<std::unique_ptr<Network>> Network::Random(const ModelConfig& config,
                                                         const NetworkOptions& options) {
  using Result = absl::StatusOr<std::unique_ptr<Network>>;
  return CatchTorch("a random network", [&]() -> Result {
    constexpr double kDeviation = 0.02;
    const at::NoGradGuard no_grad;
    auto network = std::unique_ptr<Network>(new Network);
    network->config_ = config;
    network->options_ = options;
    const auto rows = [&] {
      return at::randn({config.vocabulary_size, config.hidden_size}, TensorOptionsOf(options)) *
             kDeviation;
    };
    network->embedding_ = rows();
    network->head_ = config.tied_embeddings ? network->embedding_ : rows();
    network->final_norm_ = at::ones({config.hidden_size}, TensorOptionsOf(options));
    network->PlaceRotaryTable();
    network->MakeWindow();
    for (int64_t layer = 0; layer < config.layer_count; ++layer) {
      ASSIGN_OR_RETURN(DecoderLayer drawn,
                       DecoderLayer::Random(config, options, layer, network->window_.get()));
      network->layers_.push_back(std::move(drawn));
    }
    return network;
  });
}

void Network::PlaceRotaryTable() {
  const RotaryTable table = MakeRotaryTable(config_);
  rotary_ = {Place(table.cos), Place(table.sin)};
}

void Network::MakeWindow() {
  if (!options_.keep_nf4 || !cuda::RunsOn(options_.device)) return;
  window_ = std::make_unique<WeightWindow>(config_.layer_count, options_.device, options_.dtype);
}

at::Tensor Network::Forward(const PackedBatch& batch,
                            absl::Span<const AdapterWeights* const> adapters,
                            const LoraDropout* dropout, int64_t recomputed_layers) const {
  return Run(batch, adapters, dropout, recomputed_layers, /*cache=*/nullptr);
}

at::Tensor Network::Forward(const PackedBatch& batch,
                            absl::Span<const AdapterWeights* const> adapters,
                            KvCache* cache) const {
  const at::NoGradGuard no_grad;
  *cache = {.batch = batch, .layers = std::vector<LayerCache>(layers_.size()), .depth = 0};
  return Run(batch, adapters, /*dropout=*/nullptr, /*recomputed_layers=*/0, cache);
}

at::Tensor Network::ForwardNodes(const NodeLevel& nodes,
                                 absl::Span<const AdapterWeights* const> adapters,
                                 KvCache* cache) const {
  std::vector<at::Tensor> kept;
  at::Tensor hidden = RunNodes(nodes, adapters, *cache, &kept);
  for (size_t layer = 0; layer < layers_.size(); ++layer) {
    cache->layers[layer].node_kv.push_back(kept[layer]);
  }
  ++cache->depth;
  return hidden;
}

at::Tensor Network::ForwardLeaves(const NodeLevel& nodes,
                                  absl::Span<const AdapterWeights* const> adapters,
                                  const KvCache& cache) const {
  return RunNodes(nodes, adapters, cache, /*kept=*/nullptr);
}

at::Tensor Network::RunNodes(const NodeLevel& nodes,
                             absl::Span<const AdapterWeights* const> adapters, const KvCache& cache,
                             std::vector<at::Tensor>* kept) const {
  const at::NoGradGuard no_grad;
  const NodeContext context = MakeNodeContext(nodes, cache, adapters, rotary_);
  const at::Tensor ids = PlaceOn(at::tensor(nodes.ids, at::kLong), embedding_.device());
  Stream stream{.residual = embedding_.index_select(0, ids), .delta = {}};
  for (size_t layer = 0; layer < layers_.size(); ++layer) {
    at::Tensor kv;
    stream = layers_[layer].ForwardNodes(stream, context, cache.layers[layer], &kv);
    if (kept != nullptr) kept->push_back(kv);
  }
  return AddRmsNorm(stream.residual, stream.delta, final_norm_, config_.rms_norm_epsilon).normed;
}

int64_t KvCache::bytes() const {
  int64_t bytes = 0;
  for (const LayerCache& layer : layers) {
    bytes += static_cast<int64_t>(layer.prompt_kv.nbytes());
    for (const at::Tensor& kv : layer.node_kv) bytes += static_cast<int64_t>(kv.nbytes());
  }
  return bytes;
}

at::Tensor Network::Run(const PackedBatch& batch, absl::Span<const AdapterWeights* const> adapters,
                        const LoraDropout* dropout, int64_t recomputed_layers,
                        KvCache* cache) const {
  CheckLengths(batch, rotary_.cos.size(0));
  const auto context =
      std::make_shared<const ForwardContext>(MakeContext(batch, adapters, rotary_, dropout));
  Stream stream{.residual = embedding_.index_select(0, PlaceOn(batch.ids, embedding_.device())),
                .delta = {}};
  const auto cache_of = [cache](size_t layer) {
    return cache == nullptr ? nullptr : &cache->layers[layer];
  };
  for (size_t layer = 0; layer + 1 < layers_.size(); ++layer) {
    const auto index = static_cast<int64_t>(layer);
    if (recomputed_layers > 0 && RecordsGradients(index, stream, *context)) {
      stream = ForwardRecomputed(layers_[layer], index, stream, context);
      --recomputed_layers;
    } else {
      stream = layers_[layer].Forward(stream, *context, cache_of(layer));
    }
  }
  stream = layers_.back().ForwardAnswers(stream, *context, cache_of(layers_.size() - 1));
  return AddRmsNorm(stream.residual, stream.delta, final_norm_, config_.rms_norm_epsilon).normed;
}

at::Tensor Network::Place(const at::Tensor& tensor) const {
  return PlaceOn(tensor, options_.device);
}

AdapterWeights Network::Place(const AdapterWeights& weights) const {
  return cuda::RunsOn(options_.device) ? CopyTo(weights, options_.device) : weights;
}

at::Tensor Network::Logits(const at::Tensor& hidden) const {
  return RowStableLinear(hidden, head_).to(at::kFloat);
}

at::Tensor Network::BinLogits(const at::Tensor& hidden, const at::Tensor& score) {
  return RowStableLinear(hidden.to(at::kFloat), score);
}

std::vector<std::vector<FrozenLinears>> Network::Linears() const {
  std::vector<std::vector<FrozenLinears>> linears;
  for (const DecoderLayer& layer : layers_) linears.push_back(layer.Linears());
  return linears;
}

int64_t Network::weight_bytes() const {
  int64_t bytes = static_cast<int64_t>(embedding_.nbytes() + final_norm_.nbytes() +
                                       rotary_.cos.nbytes() + rotary_.sin.nbytes());
  if (!config_.tied_embeddings) bytes += static_cast<int64_t>(head_.nbytes());
  for (const DecoderLayer& layer : layers_) bytes += layer.bytes();
  if (window_ != nullptr) bytes += window_->buffer_bytes();
  return bytes;
}

}  // namespace pricer
