#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "model/checkpoint.h"
#include "model/layers/decoder_layer.h"
#include "model/layers/rotary.h"
#include "model/layers/weight_window.h"
#include "model/lora.h"
#include "model/model_config.h"
#include "model/packed_batch.h"
#include "model/weights.h"

namespace pricer {

// Keys and values of a batch's tokens and of the nodes that were added behind them. Each sequence
// is the root of a tree: a node of depth 1 follows the prompt, one of depth d a node of depth d
// - 1.
struct KvCache {
  PackedBatch batch;
  std::vector<LayerCache> layers;
  int64_t depth = 0;  // of the deepest nodes
  int64_t bytes() const;
};

// The nodes of one depth, ordered by the sequences that they follow.
struct NodeLevel {
  std::vector<int64_t> ids;  // [M]
  std::vector<int64_t>
      offsets;  // [B + 1]: those of sequence b are offsets[b] to offsets[b + 1] - 1
  // [depth - 1][M]: of each node its ancestor among the nodes of depth 1, of depth 2, ...
  std::vector<std::vector<int64_t>> ancestors;
};

// A decoder-only language model. Immutable after Load; on a CPU Forward is thread-safe (each call
// uses ATen's intra-op threads). On a GPU it is for one thread at a time, reads batches from the
// CPU and adapters from the GPU, launches on the current stream and does not wait for it.
class Network {
 public:
  // FailedPrecondition/DataLoss name file and tensor; ResourceExhausted where memory ran out;
  // Cancelled as soon as `stop` says true: it may be empty, and is asked before each layer, from
  // several threads.
  static absl::StatusOr<std::unique_ptr<Network>> Load(const Checkpoint& checkpoint,
                                                       const NetworkOptions& options,
                                                       const std::function<bool()>& stop = nullptr);

  // A network of random weights, on a GPU: for measuring, without a checkpoint of that size. Errors
  // as Load's.
  static absl::StatusOr<std::unique_ptr<Network>> Random(const ModelConfig& config,
                                                         const NetworkOptions& options);

  // Final-norm hidden states of the batch's answers: [A, H] in the compute dtype. In the last layer
  // queries, output projection and MLP run for those tokens alone. `adapters` are what
  // batch.adapter indexes; `dropout`, which may be null, is that of a training step. Records
  // gradients for adapter tensors that require them, under at::AutoGradMode. Of `recomputed_layers`
  // of those layers that record any, from the lowest on and never the last one, inputs alone are
  // kept: the backward pass computes them once more, to the same bits; the network and what
  // `adapters` point at must live until then. A row does not depend on what else is in the batch.
  // Throws c10::Error where a sequence is longer than the base's context.
  at::Tensor Forward(const PackedBatch& batch, absl::Span<const AdapterWeights* const> adapters,
                     const LoraDropout* dropout = nullptr, int64_t recomputed_layers = 0) const;

  // The same without gradients, keeping in `cache` what ForwardNodes needs.
  at::Tensor Forward(const PackedBatch& batch, absl::Span<const AdapterWeights* const> adapters,
                     KvCache* cache) const;

  // Final-norm hidden states [M, H] of nodes one depth below those in `cache`, which are added to
  // it. `adapters` are those of the batch. No gradient is recorded. Throws c10::Error where a node
  // lies beyond the base's context. REQUIRES: M >= 1.
  at::Tensor ForwardNodes(const NodeLevel& nodes, absl::Span<const AdapterWeights* const> adapters,
                          KvCache* cache) const;
  // The same for nodes that nothing will follow: `cache` stays as it is.
  at::Tensor ForwardLeaves(const NodeLevel& nodes, absl::Span<const AdapterWeights* const> adapters,
                           const KvCache& cache) const;

  // The language model's head on hidden states [B, H]: [B, V] fp32.
  at::Tensor Logits(const at::Tensor& hidden) const;

  // The bins head on hidden states [B, H]: [B, bins] fp32.
  static at::Tensor BinLogits(const at::Tensor& hidden, const at::Tensor& score);

  at::Device device() const { return options_.device; }
  // A tensor on the CPU, or an adapter's, where the network computes; the same one where it is the
  // CPU.
  at::Tensor Place(const at::Tensor& tensor) const;
  AdapterWeights Place(const AdapterWeights& weights) const;

  const ModelConfig& config() const { return config_; }
  const NetworkOptions& options() const { return options_; }
  // Of each layer DecoderLayer::Linears.
  std::vector<std::vector<FrozenLinears>> Linears() const;
  // Resident bytes of all weights and of the rotary table, without what gradients need.
  // With the buffers that decoding takes on a GPU.
  int64_t weight_bytes() const;

 private:
  Network() = default;
  void PlaceRotaryTable();
  void MakeWindow();
  at::Tensor Run(const PackedBatch& batch, absl::Span<const AdapterWeights* const> adapters,
                 const LoraDropout* dropout, int64_t recomputed_layers, KvCache* cache) const;
  at::Tensor RunNodes(const NodeLevel& nodes, absl::Span<const AdapterWeights* const> adapters,
                      const KvCache& cache, std::vector<at::Tensor>* kept) const;

  ModelConfig config_;
  NetworkOptions options_;
  at::Tensor embedding_;   // [V, H]
  at::Tensor head_;        // [V, H]; the embedding where tied
  at::Tensor final_norm_;  // [H]
  RotaryTable rotary_;
  std::unique_ptr<WeightWindow> window_;  // null where no linear stays in NF4
  std::vector<DecoderLayer> layers_;
};

}  // namespace pricer
