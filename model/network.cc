#include "model/network.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <utility>

#include "base/status_macros.h"
#include "model/ops/lora_linear.h"
#include "model/ops/rms_norm.h"
#include "model/torch_status.h"

namespace pricer {
namespace {

// Runs of neighbouring sequences that use the same adapter, as token rows and as sequence rows.
void FillSegments(const PackedBatch& batch, absl::Span<const AdapterWeights* const> adapters,
                  ForwardContext& context) {
  const int64_t count = batch.sequence_count();
  for (int64_t begin = 0; begin < count;) {
    int64_t end = begin + 1;
    while (end < count && batch.adapter[end] == batch.adapter[begin]) ++end;
    if (batch.adapter[begin] >= 0) {
      const AdapterWeights* adapter = adapters[batch.adapter[begin]];
      context.token_segments.push_back({batch.offsets[begin], batch.offsets[end], adapter});
      context.answer_segments.push_back({begin, end, adapter});
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

at::Tensor LastTokenRows(const PackedBatch& batch) {
  at::Tensor rows = at::empty({batch.sequence_count()}, at::kLong);
  int64_t* row = rows.mutable_data_ptr<int64_t>();
  for (int64_t b = 0; b < batch.sequence_count(); ++b) row[b] = batch.offsets[b + 1] - 1;
  return rows;
}

ForwardContext MakeContext(const PackedBatch& batch,
                           absl::Span<const AdapterWeights* const> adapters,
                           const RotaryTable& rotary) {
  ForwardContext context;
  context.layout = {batch.positions, batch.offsets};
  context.rotary = &rotary;
  context.answer_rows = LastTokenRows(batch);
  FillSegments(batch, adapters, context);
  return context;
}

// Every layer by ATen's intra-op threads, since quantizing takes most of the time.
absl::StatusOr<std::vector<DecoderLayer>> LoadLayers(const Checkpoint& checkpoint,
                                                     const NetworkOptions& options,
                                                     const std::function<bool()>& stop) {
  const int64_t count = checkpoint.config().layer_count;
  std::vector<absl::StatusOr<DecoderLayer>> loaded(count, absl::UnknownError("not loaded"));
  at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t layer = begin; layer < end; ++layer) {
      const bool stopped = stop && stop();
      loaded[layer] = stopped ? absl::CancelledError("loading the base")
                              : DecoderLayer::Load(checkpoint, options, layer);
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
  if (checkpoint.IsNf4("lm_head")) return LoadLinearWeight(checkpoint, "lm_head", options);
  return ToTensor(checkpoint.tensor("lm_head.weight")).to(options.dtype);
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
      return ToTensor(checkpoint.tensor(name)).to(options.dtype);
    };
    network->embedding_ = tensor("model.embed_tokens.weight");
    ASSIGN_OR_RETURN(network->head_, LoadHead(checkpoint, options, network->embedding_));
    network->final_norm_ = tensor("model.norm.weight");
    network->rotary_ = MakeRotaryTable(network->config_);
    ASSIGN_OR_RETURN(network->layers_, LoadLayers(checkpoint, options, stop));
    return network;
  });
}

at::Tensor Network::Forward(const PackedBatch& batch,
                            absl::Span<const AdapterWeights* const> adapters) const {
  CheckLengths(batch, rotary_.cos.size(0));
  const ForwardContext context = MakeContext(batch, adapters, rotary_);
  Stream stream{.residual = embedding_.index_select(0, batch.ids), .delta = {}};
  for (size_t layer = 0; layer + 1 < layers_.size(); ++layer) {
    stream = layers_[layer].Forward(stream, context);
  }
  stream = layers_.back().ForwardAnswers(stream, context);
  return AddRmsNorm(stream.residual, stream.delta, final_norm_, config_.rms_norm_epsilon).normed;
}

at::Tensor Network::Logits(const at::Tensor& hidden) const {
  return RowStableLinear(hidden, head_).to(at::kFloat);
}

at::Tensor Network::BinLogits(const at::Tensor& hidden, const at::Tensor& score) {
  return RowStableLinear(hidden.to(at::kFloat), score);
}

int64_t Network::weight_bytes() const {
  int64_t bytes = static_cast<int64_t>(embedding_.nbytes() + final_norm_.nbytes() +
                                       rotary_.cos.nbytes() + rotary_.sin.nbytes());
  if (!config_.tied_embeddings) bytes += static_cast<int64_t>(head_.nbytes());
  for (const DecoderLayer& layer : layers_) bytes += layer.bytes();
  return bytes;
}

}  // namespace pricer
