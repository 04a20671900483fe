#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace pricer {

// How rotary frequencies are stretched beyond the original context; transformers'
// modeling_rope_utils.py.
enum class RopeKind { kDefault, kLlama3 };

struct RopeConfig {
  RopeKind kind = RopeKind::kDefault;
  double theta = 10000.0;
  // kLlama3 alone.
  double factor = 1.0;
  double low_frequency_factor = 1.0;
  double high_frequency_factor = 4.0;
  int64_t original_context_tokens = 8192;
};

// Prompts are never longer, whatever a model's context.
inline constexpr int64_t kMaxPromptTokens = 1 << 20;

// Architecture of a Llama 1 to 3.x decoder, from a checkpoint's config.json.
struct ModelConfig {
  int64_t vocabulary_size = 0;  // V
  int64_t hidden_size = 0;      // H
  int64_t layer_count = 0;
  int64_t head_count = 0;      // N
  int64_t kv_head_count = 0;   // K, divides N
  int64_t head_dim = 0;        // D, even
  int64_t ffn_size = 0;        // F
  int64_t context_tokens = 0;  // max_position_embeddings
  double rms_norm_epsilon = 1e-6;
  RopeConfig rope;
  bool tied_embeddings = false;  // the head is the embedding
  bool attention_bias = false;   // on q, k, v and o
  bool mlp_bias = false;         // on gate, up and down
  std::optional<int64_t> bos_token_id;
  std::vector<int64_t> eos_token_ids;
  std::optional<int64_t> pad_token_id;
  // "float32", "bfloat16", "float16" or empty: what the file says its weights are.
  std::string dtype;

  // Reads config.json as transformers 4 (rope_theta, rope_scaling, torch_dtype) or 5
  // (rope_parameters, dtype) writes it, and validates. `source` names the file in errors.
  // InvalidArgument names the field, what was expected and what came; Unimplemented names an
  // architecture, activation or rope kind that is not Llama's.
  static absl::StatusOr<ModelConfig> FromJson(absl::string_view json, absl::string_view source);
  static absl::StatusOr<ModelConfig> FromFile(const std::string& path);

  // Sizes positive and below sane bounds, N a multiple of K, D even, factors finite, the padding
  // token in the vocabulary. Other tokens need not be: files name ones that were never added.
  absl::Status Validate() const;

  // Canonical JSON (sorted keys, no spaces) of the fields that change results: part of the base
  // fingerprint.
  std::string ArchitectureJson() const;

  // Longest sequence that is computed: the context, at most kMaxPromptTokens.
  int64_t MaxSequenceTokens() const;

  // Parameters without the embedding and head, and with them.
  int64_t LinearParameterCount() const;
  int64_t ParameterCount() const;
};

// Linear layers of a decoder layer, in the order of the forward pass.
enum class Projection { kQ, kK, kV, kO, kGate, kUp, kDown };
inline constexpr int kProjectionCount = 7;

// "self_attn.q_proj" ... "mlp.down_proj": the module path inside a layer.
absl::string_view ProjectionPath(Projection projection);

// Output and input features of a projection.
struct LinearShape {
  int64_t out = 0;
  int64_t in = 0;
};
LinearShape ProjectionShape(const ModelConfig& config, Projection projection);

// "model.layers.<layer>.self_attn.q_proj": the module path in the checkpoint.
std::string ModulePath(int64_t layer, Projection projection);

// Which linear layer of the decoder.
struct LinearPlace {
  int64_t layer = 0;
  Projection projection = Projection::kQ;
};
// All of them by the names of their weights: "model.layers.0.self_attn.q_proj.weight".
std::map<std::string, LinearPlace> LinearWeights(const ModelConfig& config);

}  // namespace pricer
