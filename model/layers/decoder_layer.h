#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "model/checkpoint.h"
#include "model/layers/linear.h"
#include "model/model_config.h"
#include "model/ops/attention.h"

namespace pricer {

// What a forward pass carries from layer to layer: the residual stream and what the last block has
// yet to add to it. The addition happens inside the next normalization, in one pass over memory.
struct Stream {
  at::Tensor residual;  // [T, H]
  at::Tensor delta;     // [T, H]; undefined before the first block
};

// What one layer keeps of the tokens that were computed, for those that are added behind them.
struct LayerCache {
  at::Tensor prompt_kv;             // [T or more, 2 K D], keys rotated
  std::vector<at::Tensor> node_kv;  // [depth] [M, 2 K D], likewise
};

// The nodes of one depth, behind the sequences of a packed batch.
struct NodeContext {
  const RotaryTable* rotary = nullptr;
  at::Tensor positions;                 // [M] int64
  std::vector<int64_t> prompt_offsets;  // [B + 1]
  std::vector<int64_t> node_offsets;    // [B + 1]
  std::vector<at::Tensor> ancestors;    // [depth - 1] [M] int64: rows of the depths before
  AdapterRows rows;                     // of [M, ...]
};

// What every layer of one forward pass shares.
struct ForwardContext {
  PackedLayout layout;
  const RotaryTable* rotary = nullptr;
  AdapterRows tokens;        // of [T, ...]
  AdapterRows answers;       // of [A, ...]
  at::Tensor answer_tokens;  // [A] int64: which tokens are answers
};

// One block of a Llama decoder: attention and a gated MLP, each after a normalization. Immutable.
class DecoderLayer {
 public:
  // `window` is LinearGroup::Load's.
  static absl::StatusOr<DecoderLayer> Load(const Checkpoint& checkpoint,
                                           const NetworkOptions& options, int64_t layer,
                                           WeightWindow* window);

  // Of random weights, on a GPU: for measuring.
  static absl::StatusOr<DecoderLayer> Random(const ModelConfig& config,
                                             const NetworkOptions& options, int64_t layer,
                                             WeightWindow* window);

  // All tokens: [T, H] to [T, H]. Fills the prompt_kv of `cache`, which may be null.
  Stream Forward(const Stream& in, const ForwardContext& context, LayerCache* cache) const;

  // The last layer: keys and values for all tokens, everything else for the answers alone: [T, H]
  // to [A, H].
  Stream ForwardAnswers(const Stream& in, const ForwardContext& context, LayerCache* cache) const;

  // Nodes one depth below those that the cache holds: [M, H] to [M, H]. `kv` becomes what it would
  // hold of them.
  Stream ForwardNodes(const Stream& in, const NodeContext& context, const LayerCache& cache,
                      at::Tensor* kv) const;

  // Those that share an input together: q, k, v; o; gate, up; down.
  std::vector<FrozenLinears> Linears() const;
  int64_t bytes() const;

 private:
  at::Tensor KeysAndValues(const at::Tensor& qkv) const;
  // How the normalization of `sum` makes an input again.
  InputSource Normed(const at::Tensor& sum, const at::Tensor& weight) const;
  Stream Mlp(const at::Tensor& residual, const at::Tensor& attended, const AdapterRows& rows) const;

  AttentionShape shape_;
  double epsilon_ = 0;
  at::Tensor input_norm_;           // [H]
  at::Tensor post_attention_norm_;  // [H]
  LinearGroup qkv_;
  LinearGroup output_;
  LinearGroup gate_up_;
  LinearGroup down_;
};

}  // namespace pricer
