#include "model/layers/decoder_layer.h"

#include <ATen/core/grad_mode.h>

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/cuda/device.h"
#include "model/ops/rms_norm.h"
#include "model/ops/swiglu.h"

namespace pricer {
namespace {

// Whether gradients will ask for sources of inputs.
bool KeepsSources(const at::Tensor& x) { return cuda::Handles(x) && at::GradMode::is_enabled(); }

at::Tensor SwigluAgain(const at::Tensor& gate_up) {
  const at::NoGradGuard no_grad;
  return Swiglu(gate_up);
}

}  // namespace

absl::StatusOr<DecoderLayer> DecoderLayer::Load(const Checkpoint& checkpoint,
                                                const NetworkOptions& options, int64_t layer,
                                                WeightWindow* window) {
  const ModelConfig& config = checkpoint.config();
  const auto norm = [&](absl::string_view name) {
    const std::string tensor = absl::StrCat("model.layers.", layer, ".", name, ".weight");
    return ToTensor(checkpoint.tensor(tensor), options.device).to(options.dtype);
  };
  const auto linears = [&](std::vector<Projection> projections) {
    return LinearGroup::Load(checkpoint, options, layer, std::move(projections), window);
  };
  DecoderLayer out;
  out.shape_ = {config.head_count, config.kv_head_count, config.head_dim};
  out.epsilon_ = config.rms_norm_epsilon;
  out.input_norm_ = norm("input_layernorm");
  out.post_attention_norm_ = norm("post_attention_layernorm");
  ASSIGN_OR_RETURN(out.qkv_, linears({Projection::kQ, Projection::kK, Projection::kV}));
  ASSIGN_OR_RETURN(out.output_, linears({Projection::kO}));
  ASSIGN_OR_RETURN(out.gate_up_, linears({Projection::kGate, Projection::kUp}));
  ASSIGN_OR_RETURN(out.down_, linears({Projection::kDown}));
  return out;
}

absl::StatusOr<DecoderLayer> DecoderLayer::Random(const ModelConfig& config,
                                                  const NetworkOptions& options, int64_t layer,
                                                  WeightWindow* window) {
  const auto linears = [&](std::vector<Projection> projections) {
    return LinearGroup::Random(config, options, layer, std::move(projections), window);
  };
  DecoderLayer out;
  out.shape_ = {config.head_count, config.kv_head_count, config.head_dim};
  out.epsilon_ = config.rms_norm_epsilon;
  out.input_norm_ = at::ones({config.hidden_size}, TensorOptionsOf(options));
  out.post_attention_norm_ = at::ones({config.hidden_size}, TensorOptionsOf(options));
  ASSIGN_OR_RETURN(out.qkv_, linears({Projection::kQ, Projection::kK, Projection::kV}));
  ASSIGN_OR_RETURN(out.output_, linears({Projection::kO}));
  ASSIGN_OR_RETURN(out.gate_up_, linears({Projection::kGate, Projection::kUp}));
  ASSIGN_OR_RETURN(out.down_, linears({Projection::kDown}));
  return out;
}

Stream DecoderLayer::Forward(const Stream& in, const ForwardContext& context,
                             LayerCache* cache) const {
  const AddRmsNormOutput x = AddRmsNorm(in.residual, in.delta, input_norm_, epsilon_);
  const at::Tensor qkv = qkv_.Forward(x.normed, context.tokens, Normed(x.sum, input_norm_));
  const at::Tensor attended = PackedAttention(qkv, context.layout, shape_, *context.rotary);
  // Attention has rotated the keys in place.
  if (cache != nullptr) cache->prompt_kv = KeysAndValues(qkv);
  return Mlp(x.sum, output_.Forward(attended, context.tokens), context.tokens);
}

Stream DecoderLayer::ForwardAnswers(const Stream& in, const ForwardContext& context,
                                    LayerCache* cache) const {
  const AddRmsNormOutput x = AddRmsNorm(in.residual, in.delta, input_norm_, epsilon_);
  const at::Tensor answers = x.normed.index_select(0, context.answer_tokens);
  const at::Tensor q = qkv_.Forward(answers, context.answers, 0, 1);
  const at::Tensor kv = qkv_.Forward(x.normed, context.tokens, 1, 2, Normed(x.sum, input_norm_));
  const at::Tensor attended = AnswerAttention(q, kv, context.layout, shape_, *context.rotary);
  if (cache != nullptr) cache->prompt_kv = kv;
  return Mlp(x.sum.index_select(0, context.answer_tokens),
             output_.Forward(attended, context.answers), context.answers);
}

at::Tensor DecoderLayer::KeysAndValues(const at::Tensor& qkv) const {
  return qkv.narrow(1, shape_.heads * shape_.head_dim, 2 * shape_.kv_heads * shape_.head_dim)
      .contiguous();
}

Stream DecoderLayer::ForwardNodes(const Stream& in, const NodeContext& context,
                                  const LayerCache& cache, at::Tensor* kv) const {
  const AddRmsNormOutput x = AddRmsNorm(in.residual, in.delta, input_norm_, epsilon_);
  const at::Tensor qkv = qkv_.Forward(x.normed, context.rows);
  RotateInPlace(qkv, context.positions, *context.rotary, shape_.heads + shape_.kv_heads);
  std::vector<at::Tensor> path;
  for (size_t depth = 0; depth < context.ancestors.size(); ++depth) {
    path.push_back(cache.node_kv[depth].index_select(0, context.ancestors[depth]));
  }
  *kv = KeysAndValues(qkv);
  path.push_back(*kv);
  const at::Tensor attended = NodeAttention(qkv, cache.prompt_kv, at::stack(path, 1),
                                            context.prompt_offsets, context.node_offsets, shape_);
  return Mlp(x.sum, output_.Forward(attended, context.rows), context.rows);
}

Stream DecoderLayer::Mlp(const at::Tensor& residual, const at::Tensor& attended,
                         const AdapterRows& rows) const {
  const AddRmsNormOutput x = AddRmsNorm(residual, attended, post_attention_norm_, epsilon_);
  at::Tensor gate_up = gate_up_.Forward(x.normed, rows, Normed(x.sum, post_attention_norm_));
  const at::Tensor gated = Swiglu(gate_up);
  InputSource source;
  if (KeepsSources(gate_up)) source = {.from = gate_up.detach(), .make = SwigluAgain};
  gate_up = at::Tensor();
  return {.residual = x.sum, .delta = down_.Forward(gated, rows, source)};
}

InputSource DecoderLayer::Normed(const at::Tensor& sum, const at::Tensor& weight) const {
  if (!KeepsSources(sum)) return {};
  return {.from = sum.detach(), .make = [weight, epsilon = epsilon_](const at::Tensor& from) {
            const at::NoGradGuard no_grad;
            return AddRmsNorm(from, {}, weight, epsilon).normed;
          }};
}

std::vector<FrozenLinears> DecoderLayer::Linears() const {
  return {qkv_.linears(), output_.linears(), gate_up_.linears(), down_.linears()};
}

int64_t DecoderLayer::bytes() const {
  return qkv_.bytes() + output_.bytes() + gate_up_.bytes() + down_.bytes() +
         static_cast<int64_t>(input_norm_.nbytes() + post_attention_norm_.nbytes());
}

}  // namespace pricer
