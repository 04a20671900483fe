#include "model/model_config.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "model/json_fields.h"

namespace pricer {
namespace {

using Json = nlohmann::json;

absl::Status Unsupported(const JsonFields& fields, absl::string_view name, absl::string_view came,
                         absl::string_view expected) {
  return fields.Error(absl::StatusCode::kUnimplemented, name,
                      absl::StrCat(came, " is not supported; expected ", expected));
}

absl::Status CheckArchitecture(const JsonFields& fields) {
  std::string model_type;
  RETURN_IF_ERROR(fields.Require("model_type", &model_type));
  if (model_type != "llama")
    return Unsupported(fields, "model_type", Quoted(model_type), "'llama'");
  std::vector<std::string> architectures;
  RETURN_IF_ERROR(fields.Get("architectures", &architectures));
  for (const std::string& architecture : architectures) {
    if (architecture == "LlamaForCausalLM") continue;
    return Unsupported(fields, "architectures", Quoted(architecture), "'LlamaForCausalLM'");
  }
  std::string activation = "silu";
  RETURN_IF_ERROR(fields.Get("hidden_act", &activation));
  if (activation == "silu" || activation == "swish") return absl::OkStatus();
  return Unsupported(fields, "hidden_act", Quoted(activation), "'silu'");
}

absl::Status ReadSizes(const JsonFields& fields, ModelConfig* config) {
  RETURN_IF_ERROR(fields.Require("vocab_size", &config->vocabulary_size));
  RETURN_IF_ERROR(fields.Require("hidden_size", &config->hidden_size));
  RETURN_IF_ERROR(fields.Require("num_hidden_layers", &config->layer_count));
  RETURN_IF_ERROR(fields.Require("num_attention_heads", &config->head_count));
  RETURN_IF_ERROR(fields.Require("intermediate_size", &config->ffn_size));
  config->kv_head_count = config->head_count;
  RETURN_IF_ERROR(fields.Get("num_key_value_heads", &config->kv_head_count));
  if (fields.Has("head_dim")) {
    RETURN_IF_ERROR(fields.Get("head_dim", &config->head_dim));
  } else {
    if (config->head_count < 1 || config->hidden_size % config->head_count != 0) {
      return fields.Error("num_attention_heads",
                          absl::StrCat("expected a divisor of hidden_size ", config->hidden_size,
                                       " where there is no head_dim, got ", config->head_count));
    }
    config->head_dim = config->hidden_size / config->head_count;
  }
  // What a file does not say is what transformers' LlamaConfig assumes.
  config->context_tokens = 2048;
  RETURN_IF_ERROR(fields.Get("max_position_embeddings", &config->context_tokens));
  RETURN_IF_ERROR(fields.Get("rms_norm_eps", &config->rms_norm_epsilon));
  RETURN_IF_ERROR(fields.Get("tie_word_embeddings", &config->tied_embeddings));
  RETURN_IF_ERROR(fields.Get("attention_bias", &config->attention_bias));
  return fields.Get("mlp_bias", &config->mlp_bias);
}

absl::Status CheckPartialRotary(const JsonFields& fields) {
  double share = 1.0;
  RETURN_IF_ERROR(fields.Get("partial_rotary_factor", &share));
  if (share == 1.0) return absl::OkStatus();
  return Unsupported(fields, "partial_rotary_factor", absl::StrCat(share), "1");
}

// `fields` are those of rope_scaling (version 4) or rope_parameters (version 5).
absl::Status ReadRopeParameters(const JsonFields& fields, RopeConfig* rope) {
  RETURN_IF_ERROR(CheckPartialRotary(fields));
  RETURN_IF_ERROR(fields.Get("rope_theta", &rope->theta));
  const absl::string_view kind_field = fields.Has("rope_type") ? "rope_type" : "type";
  std::string kind = "default";
  RETURN_IF_ERROR(fields.Get(kind_field, &kind));
  if (kind == "default") return absl::OkStatus();
  if (kind == "linear") {
    double factor = 1.0;
    RETURN_IF_ERROR(fields.Require("factor", &factor));
    if (factor == 1.0) return absl::OkStatus();
  }
  if (kind != "llama3") {
    return Unsupported(fields, kind_field, Quoted(kind), "'default' or 'llama3'");
  }
  rope->kind = RopeKind::kLlama3;
  RETURN_IF_ERROR(fields.Require("factor", &rope->factor));
  RETURN_IF_ERROR(fields.Require("low_freq_factor", &rope->low_frequency_factor));
  RETURN_IF_ERROR(fields.Require("high_freq_factor", &rope->high_frequency_factor));
  return fields.Get("original_max_position_embeddings", &rope->original_context_tokens);
}

absl::Status ReadRope(const JsonFields& fields, ModelConfig* config) {
  RETURN_IF_ERROR(CheckPartialRotary(fields));
  RETURN_IF_ERROR(fields.Get("rope_theta", &config->rope.theta));
  config->rope.original_context_tokens = config->context_tokens;
  // As transformers 5: the older field wins, and a theta inside the object wins over the one beside
  // it, but an original context beside it over the one inside.
  for (const char* name : {"rope_scaling", "rope_parameters"}) {
    const Json* value = fields.Find(name);
    if (value == nullptr || (value->is_object() && value->empty())) continue;
    ASSIGN_OR_RETURN(const JsonFields parameters, fields.Object(name));
    RETURN_IF_ERROR(ReadRopeParameters(parameters, &config->rope));
    return fields.Get("original_max_position_embeddings", &config->rope.original_context_tokens);
  }
  return absl::OkStatus();
}

absl::Status ReadTokenIds(const JsonFields& fields, const Json& json, ModelConfig* config) {
  // Absent and null differ: transformers' LlamaConfig assumes 1 and 2 where nothing is said.
  int64_t bos = 1;
  RETURN_IF_ERROR(fields.Get("bos_token_id", &bos));
  if (fields.Has("bos_token_id") || !json.contains("bos_token_id")) config->bos_token_id = bos;
  if (const Json* eos = fields.Find("eos_token_id"); eos != nullptr && eos->is_array()) {
    RETURN_IF_ERROR(fields.Get("eos_token_id", &config->eos_token_ids));
  } else if (eos != nullptr || !json.contains("eos_token_id")) {
    int64_t id = 2;
    RETURN_IF_ERROR(fields.Get("eos_token_id", &id));
    config->eos_token_ids = {id};
  }
  int64_t pad = -1;
  RETURN_IF_ERROR(fields.Get("pad_token_id", &pad));
  // The first Llama checkpoints say -1 for none.
  if (pad != -1) config->pad_token_id = pad;
  return absl::OkStatus();
}

absl::Status ReadDtype(const JsonFields& fields, ModelConfig* config) {
  RETURN_IF_ERROR(fields.Get("torch_dtype", &config->dtype));
  return fields.Get("dtype", &config->dtype);
}

absl::Status CheckRange(absl::string_view field, int64_t value, int64_t low, int64_t high) {
  if (low <= value && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("field '", field, "': expected ", low, " to ", high, ", got ", value));
}

absl::Status CheckPositive(absl::string_view field, double value) {
  if (std::isfinite(value) && value > 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("field '", field, "': expected a finite number above 0, got ", value));
}

absl::Status CheckRope(const RopeConfig& rope) {
  RETURN_IF_ERROR(CheckPositive("rope_theta", rope.theta));
  if (rope.kind == RopeKind::kDefault) return absl::OkStatus();
  RETURN_IF_ERROR(CheckPositive("factor", rope.factor));
  RETURN_IF_ERROR(CheckPositive("low_freq_factor", rope.low_frequency_factor));
  RETURN_IF_ERROR(CheckPositive("high_freq_factor", rope.high_frequency_factor));
  if (rope.high_frequency_factor <= rope.low_frequency_factor) {
    return absl::InvalidArgumentError(
        absl::StrCat("field 'high_freq_factor': expected more than low_freq_factor ",
                     rope.low_frequency_factor, ", got ", rope.high_frequency_factor));
  }
  return CheckRange("original_max_position_embeddings", rope.original_context_tokens, 1, 1 << 30);
}

absl::StatusOr<ModelConfig> FromValue(const Json& value, absl::string_view source) {
  ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Create(value, source));
  ModelConfig config;
  RETURN_IF_ERROR(CheckArchitecture(fields));
  RETURN_IF_ERROR(ReadSizes(fields, &config));
  RETURN_IF_ERROR(ReadRope(fields, &config));
  RETURN_IF_ERROR(ReadTokenIds(fields, value, &config));
  RETURN_IF_ERROR(ReadDtype(fields, &config));
  if (const absl::Status status = config.Validate(); !status.ok()) {
    return absl::Status(status.code(), absl::StrCat(source, ": ", status.message()));
  }
  return config;
}

}  // namespace

absl::StatusOr<ModelConfig> ModelConfig::FromJson(absl::string_view json,
                                                  absl::string_view source) {
  ASSIGN_OR_RETURN(const Json value, ParseJson(json, source));
  return FromValue(value, source);
}

absl::StatusOr<ModelConfig> ModelConfig::FromFile(const std::string& path) {
  ASSIGN_OR_RETURN(const Json value, ReadJsonFile(path));
  return FromValue(value, path);
}

absl::Status ModelConfig::Validate() const {
  RETURN_IF_ERROR(CheckRange("vocab_size", vocabulary_size, 1, 1 << 24));
  RETURN_IF_ERROR(CheckRange("hidden_size", hidden_size, 1, 1 << 17));
  RETURN_IF_ERROR(CheckRange("num_hidden_layers", layer_count, 1, 1 << 12));
  RETURN_IF_ERROR(CheckRange("num_attention_heads", head_count, 1, 1 << 12));
  RETURN_IF_ERROR(CheckRange("num_key_value_heads", kv_head_count, 1, head_count));
  RETURN_IF_ERROR(CheckRange("head_dim", head_dim, 2, 1 << 12));
  RETURN_IF_ERROR(CheckRange("intermediate_size", ffn_size, 1, 1 << 20));
  RETURN_IF_ERROR(CheckRange("max_position_embeddings", context_tokens, 1, 1 << 30));
  if (head_count % kv_head_count != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("field 'num_key_value_heads': expected a divisor of num_attention_heads ",
                     head_count, ", got ", kv_head_count));
  }
  if (head_dim % 2 != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("field 'head_dim': expected an even number, got ", head_dim));
  }
  RETURN_IF_ERROR(CheckPositive("rms_norm_eps", rms_norm_epsilon));
  RETURN_IF_ERROR(CheckRope(rope));
  if (!pad_token_id) return absl::OkStatus();
  return CheckRange("pad_token_id", *pad_token_id, 0, vocabulary_size - 1);
}

std::string ModelConfig::ArchitectureJson() const {
  Json json = {{"attention_bias", attention_bias},
               {"ffn_size", ffn_size},
               {"head_count", head_count},
               {"head_dim", head_dim},
               {"hidden_size", hidden_size},
               {"kv_head_count", kv_head_count},
               {"layer_count", layer_count},
               {"mlp_bias", mlp_bias},
               {"model_type", "llama"},
               {"rms_norm_epsilon", rms_norm_epsilon},
               {"rope_theta", rope.theta},
               {"tied_embeddings", tied_embeddings},
               {"vocabulary_size", vocabulary_size}};
  if (rope.kind == RopeKind::kLlama3) {
    json["rope_scaling"] = {{"factor", rope.factor},
                            {"high_frequency_factor", rope.high_frequency_factor},
                            {"kind", "llama3"},
                            {"low_frequency_factor", rope.low_frequency_factor},
                            {"original_context_tokens", rope.original_context_tokens}};
  }
  return json.dump();
}

int64_t ModelConfig::MaxSequenceTokens() const {
  return std::min(context_tokens, kMaxPromptTokens);
}

int64_t ModelConfig::LinearParameterCount() const {
  int64_t per_layer = 0;
  for (int p = 0; p < kProjectionCount; ++p) {
    const Projection projection = static_cast<Projection>(p);
    const LinearShape shape = ProjectionShape(*this, projection);
    const bool in_attention = projection <= Projection::kO;
    per_layer += shape.out * shape.in;
    if (in_attention ? attention_bias : mlp_bias) per_layer += shape.out;
  }
  return layer_count * per_layer;
}

int64_t ModelConfig::ParameterCount() const {
  const int64_t embeddings = (tied_embeddings ? 1 : 2) * vocabulary_size * hidden_size;
  const int64_t norms = (2 * layer_count + 1) * hidden_size;
  return LinearParameterCount() + embeddings + norms;
}

absl::string_view ProjectionPath(Projection projection) {
  switch (projection) {
    case Projection::kQ:
      return "self_attn.q_proj";
    case Projection::kK:
      return "self_attn.k_proj";
    case Projection::kV:
      return "self_attn.v_proj";
    case Projection::kO:
      return "self_attn.o_proj";
    case Projection::kGate:
      return "mlp.gate_proj";
    case Projection::kUp:
      return "mlp.up_proj";
    case Projection::kDown:
      return "mlp.down_proj";
  }
  return "";
}

LinearShape ProjectionShape(const ModelConfig& config, Projection projection) {
  const int64_t query = config.head_count * config.head_dim;
  const int64_t key = config.kv_head_count * config.head_dim;
  switch (projection) {
    case Projection::kQ:
      return {query, config.hidden_size};
    case Projection::kK:
    case Projection::kV:
      return {key, config.hidden_size};
    case Projection::kO:
      return {config.hidden_size, query};
    case Projection::kGate:
    case Projection::kUp:
      return {config.ffn_size, config.hidden_size};
    case Projection::kDown:
      return {config.hidden_size, config.ffn_size};
  }
  return {};
}

std::string ModulePath(int64_t layer, Projection projection) {
  return absl::StrCat("model.layers.", layer, ".", ProjectionPath(projection));
}

std::map<std::string, LinearPlace> LinearWeights(const ModelConfig& config) {
  std::map<std::string, LinearPlace> weights;
  for (int64_t layer = 0; layer < config.layer_count; ++layer) {
    for (int p = 0; p < kProjectionCount; ++p) {
      const auto projection = static_cast<Projection>(p);
      weights[ModulePath(layer, projection) + ".weight"] = {layer, projection};
    }
  }
  return weights;
}

}  // namespace pricer
