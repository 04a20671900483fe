#pragma once

#include <ATen/ATen.h>

#include <cstdint>

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
  static absl::StatusOr<DecoderLayer> Load(const Checkpoint& checkpoint,
                                           const NetworkOptions& options, int64_t layer);

  // All tokens: [T, H] to [T, H].
  Stream Forward(const Stream& in, const ForwardContext& context) const;

  // The last layer: keys and values for all tokens, everything else for the answers alone: [T, H]
  // to [A, H].
  Stream ForwardAnswers(const Stream& in, const ForwardContext& context) const;

  int64_t bytes() const;

 private:
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
