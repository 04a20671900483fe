#include "model/gguf_config.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/json_fields.h"

namespace pricer {
namespace {

constexpr absl::string_view kRopeFactors = "rope_freqs.weight";
// Factors are stored in fp32 by a writer that computed them in fp32 or fp64.
constexpr double kFactorTolerance = 1e-5;

absl::Status Unsupported(const GgufFile& file, absl::string_view key, absl::string_view came,
                         absl::string_view expected) {
  return absl::UnimplementedError(absl::StrCat(file.path(), ": key ", Quoted(key), ": ", came,
                                               " is not supported; expected ", expected));
}

absl::StatusOr<int64_t> IntegerOr(const GgufFile& file, absl::string_view key, int64_t otherwise) {
  if (!file.Has(key)) return otherwise;
  return file.Integer(key);
}

// Files hold most reals in fp32. The shortest decimal that gives the same fp32 value is what the
// file's author wrote: 1e-05 and not 9.999999747378752e-06.
absl::StatusOr<double> RealOr(const GgufFile& file, absl::string_view key, double otherwise) {
  if (!file.Has(key)) return otherwise;
  ASSIGN_OR_RETURN(const double value, file.Real(key));
  const float narrow = static_cast<float>(value);
  if (static_cast<double>(narrow) != value) return value;
  char text[32];
  const auto written = std::to_chars(text, text + sizeof(text), narrow);
  double decimal = value;
  std::from_chars(text, written.ptr, decimal);
  return decimal;
}

absl::Status ReadHeads(const GgufFile& file, ModelConfig* config) {
  ASSIGN_OR_RETURN(config->head_count, file.Integer("llama.attention.head_count"));
  ASSIGN_OR_RETURN(config->kv_head_count,
                   IntegerOr(file, "llama.attention.head_count_kv", config->head_count));
  if (config->head_count < 1) {
    return absl::DataLossError(
        absl::StrCat(file.path(), ": key 'llama.attention.head_count': expected >= 1, got ",
                     config->head_count));
  }
  ASSIGN_OR_RETURN(config->head_dim, IntegerOr(file, "llama.attention.key_length",
                                               config->hidden_size / config->head_count));
  for (const char* key : {"llama.attention.value_length", "llama.rope.dimension_count"}) {
    ASSIGN_OR_RETURN(const int64_t size, IntegerOr(file, key, config->head_dim));
    if (size == config->head_dim) continue;
    return Unsupported(file, key, absl::StrCat(size),
                       absl::StrCat(config->head_dim, ", the size of a head"));
  }
  return absl::OkStatus();
}

absl::Status CheckRopeKeys(const GgufFile& file) {
  constexpr absl::string_view kType = "llama.rope.scaling.type";
  std::string type = "linear";  // llama.cpp's default; it needs a factor to change anything
  if (file.Has(kType)) {
    ASSIGN_OR_RETURN(type, file.String(kType));
  }
  if (type != "none" && type != "linear") {
    return Unsupported(file, kType, Quoted(type), "none, or llama3 factors in rope_freqs.weight");
  }
  for (const char* key : {"llama.rope.scaling.factor", "llama.rope.scale_linear"}) {
    if (type == "none" && absl::string_view(key) != "llama.rope.scale_linear") continue;
    ASSIGN_OR_RETURN(const double factor, RealOr(file, key, 1.0));
    if (factor != 1.0) return Unsupported(file, key, absl::StrCat(factor), "1");
  }
  return absl::OkStatus();
}

// By what transformers divides the frequency of pair `i` (modeling_rope_utils.py,
// _compute_llama3_parameters).
double Llama3Divisor(const RopeConfig& rope, int64_t head_dim, int64_t i) {
  const double exponent = 2.0 * static_cast<double>(i) / static_cast<double>(head_dim);
  const double wavelength = 2 * M_PI * std::pow(rope.theta, exponent);
  const double original = static_cast<double>(rope.original_context_tokens);
  if (wavelength < original / rope.high_frequency_factor) return 1.0;
  if (wavelength > original / rope.low_frequency_factor) return rope.factor;
  const double smooth = (original / wavelength - rope.low_frequency_factor) /
                        (rope.high_frequency_factor - rope.low_frequency_factor);
  return 1.0 / ((1 - smooth) / rope.factor + smooth);
}

bool Explains(const RopeConfig& rope, int64_t head_dim, const std::vector<float>& factors) {
  for (size_t i = 0; i < factors.size(); ++i) {
    const double expected = Llama3Divisor(rope, head_dim, static_cast<int64_t>(i));
    if (!(std::abs(factors[i] - expected) <= kFactorTolerance * expected)) return false;
  }
  return true;
}

// A frequency 1 / wavelength and its share s, 0 where the whole factor divides and 1 where none
// does.
struct BlendPoint {
  double frequency = 0;
  double share = 0;
};

// Between the wavelengths that are kept and those that are divided by the whole factor, llama3
// scaling blends: 1/divisor = (1 - s) / factor + s with s = slope / wavelength - offset, where
// slope = original / (high - low) and offset = low / (high - low).
struct Blend {
  double slope = 0;
  double offset = 0;
  BlendPoint point;  // one that is on the line
};

// From high to low frequencies.
std::vector<BlendPoint> BlendPoints(const RopeConfig& rope, int64_t head_dim,
                                    const std::vector<float>& factors) {
  std::vector<BlendPoint> points;
  for (size_t i = 0; i < factors.size(); ++i) {
    const double exponent = 2.0 * static_cast<double>(i) / static_cast<double>(head_dim);
    const double share =
        (1 / static_cast<double>(factors[i]) - 1 / rope.factor) / (1 - 1 / rope.factor);
    const bool kept = std::abs(share - 1) < kFactorTolerance;
    const bool divided = std::abs(share) < kFactorTolerance / rope.factor;
    points.push_back({std::pow(rope.theta, -exponent) / (2 * M_PI), kept      ? 1.0
                                                                    : divided ? 0.0
                                                                              : share});
  }
  return points;
}

// The line through the points between 0 and 1. One point, or none, leaves room: then the flattest
// line that meets the neighbours' 0 and 1.
Blend FitBlend(const std::vector<BlendPoint>& points) {
  const auto is_kept = [](const BlendPoint& point) { return point.share == 1; };
  const auto is_divided = [](const BlendPoint& point) { return point.share == 0; };
  const auto first = std::find_if_not(points.begin(), points.end(), is_kept);
  const auto end = std::find_if(first, points.end(), is_divided);
  const auto slope = [](const BlendPoint& a, const BlendPoint& b) {
    return (a.share - b.share) / (a.frequency - b.frequency);
  };
  Blend blend;
  if (end - first >= 2) {
    blend.slope = slope(*first, *(end - 1));
  } else {
    // From the last point that is kept to the first that is divided, by way of what is between.
    const auto from = first == points.begin() ? first : first - 1;
    const auto to = end == points.end() ? end - 1 : end;
    for (auto point = from; point < to; ++point) {
      blend.slope = std::max(blend.slope, slope(*point, *(point + 1)));
    }
    if (from == to) blend.slope = 1 / to->frequency;
  }
  blend.point = first == points.end() ? points.back() : *first;
  blend.offset = blend.slope * blend.point.frequency - blend.point.share;
  return blend;
}

// Scalings that may have given these factors, the likeliest first. The blend leaves the scale of
// original, low and high open.
std::vector<RopeConfig> Candidates(const RopeConfig& rope, const Blend& blend) {
  std::vector<RopeConfig> candidates;
  const auto add = [&](double low, double high, double original) {
    if (!(low < high && original >= 1 && original <= 1 << 30)) return;
    RopeConfig candidate = rope;
    candidate.low_frequency_factor = low;
    candidate.high_frequency_factor = high;
    candidate.original_context_tokens = std::llround(original);
    candidates.push_back(candidate);
  };
  // All published models have low 1, high 4 and a power of two.
  add(1, 4, 8192);
  for (double original = 16; original <= 1 << 30; original *= 2) add(1, 4, original);
  if (!(blend.slope > 0 && blend.offset > 0)) return candidates;
  // Numbers as people write them, where one point is all there is, and from the line.
  for (const double high : {4.0, 2.0, 8.0}) {
    add(1, high, (blend.point.share * (high - 1) + 1) / blend.point.frequency);
  }
  const double high = std::round(2 * (1 + 1 / blend.offset)) / 2;
  for (const double low : {1.0, 2.0, 4.0, 8.0})
    add(low, low * high, blend.slope * low * (high - 1));
  // Any: such an original context that nothing is rounded.
  constexpr double kOriginal = 1 << 20;
  const double low = blend.offset * kOriginal / blend.slope;
  add(low, low + kOriginal / blend.slope, kOriginal);
  return candidates;
}

// Finds a llama3 scaling that gives these factors.
absl::StatusOr<RopeConfig> RecoverLlama3(const GgufFile& file, const ModelConfig& config,
                                         const std::vector<float>& factors) {
  RopeConfig rope = config.rope;
  rope.kind = RopeKind::kLlama3;
  rope.factor = *std::max_element(factors.begin(), factors.end());
  const Blend blend = FitBlend(BlendPoints(rope, config.head_dim, factors));
  for (const RopeConfig& candidate : Candidates(rope, blend)) {
    if (Explains(candidate, config.head_dim, factors)) return candidate;
  }
  return absl::UnimplementedError(
      absl::StrCat(file.path(), ": tensor ", Quoted(kRopeFactors),
                   ": rope scaling by these factors is not supported; expected those of llama3 "
                   "scaling"));
}

absl::Status ReadRope(const GgufFile& file, ModelConfig* config) {
  ASSIGN_OR_RETURN(config->rope.theta, RealOr(file, "llama.rope.freq_base", 10000.0));
  RETURN_IF_ERROR(CheckRopeKeys(file));
  const auto found = file.tensors().find(kRopeFactors);
  if (found == file.tensors().end()) return absl::OkStatus();
  const GgufTensor& tensor = found->second;
  if (tensor.element_count() != config->head_dim / 2) {
    return absl::DataLossError(absl::StrCat(file.path(), ": tensor ", Quoted(kRopeFactors),
                                            ": expected ", config->head_dim / 2, " values, got ",
                                            tensor.element_count()));
  }
  std::vector<float> factors(tensor.element_count());
  DequantizeGguf(tensor, absl::MakeSpan(factors));
  if (std::all_of(factors.begin(), factors.end(), [](float factor) { return factor == 1.0f; })) {
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(config->rope, RecoverLlama3(file, *config, factors));
  return absl::OkStatus();
}

// Whether the linear layers of every layer have biases: all of `names` or none of them.
absl::StatusOr<bool> HasBiases(const GgufFile& file, const std::vector<std::string>& names) {
  const auto present = [&](const std::string& name) {
    return file.tensors().count(absl::StrCat("blk.0.", name, ".bias")) > 0;
  };
  const auto count = std::count_if(names.begin(), names.end(), present);
  if (count == 0) return false;
  if (count == static_cast<int64_t>(names.size())) return true;
  const auto missing = std::find_if_not(names.begin(), names.end(), present);
  return absl::UnimplementedError(
      absl::StrCat(file.path(), ": tensor 'blk.0.", *missing,
                   ".bias' is missing, though its neighbours have biases: not supported"));
}

absl::StatusOr<int64_t> VocabularySize(const GgufFile& file, const GgufTokenizer& tokenizer) {
  const auto found = file.tensors().find("token_embd.weight");
  if (found == file.tensors().end()) {
    return absl::DataLossError(
        absl::StrCat(file.path(), ": tensor 'token_embd.weight' is missing"));
  }
  const int64_t rows = found->second.shape.front();
  ASSIGN_OR_RETURN(const int64_t stated, IntegerOr(file, "llama.vocab_size", rows));
  if (rows == stated && tokenizer.token_count <= rows) return rows;
  return absl::DataLossError(
      absl::StrCat(file.path(), ": tensor 'token_embd.weight': expected a row for each of ",
                   std::max(stated, tokenizer.token_count), " tokens, got ", rows));
}

}  // namespace

absl::Status CheckGgufIsLlama(const GgufFile& file) {
  ASSIGN_OR_RETURN(const std::string architecture, file.String("general.architecture"));
  if (architecture != "llama") {
    return Unsupported(file, "general.architecture",
                       absl::StrCat("architecture ", Quoted(architecture)), "llama");
  }
  if (file.Has("general.type")) {
    ASSIGN_OR_RETURN(const std::string type, file.String("general.type"));
    if (type != "model") return Unsupported(file, "general.type", Quoted(type), "model");
  }
  ASSIGN_OR_RETURN(const int64_t splits, IntegerOr(file, "split.count", 1));
  if (splits > 1) {
    return Unsupported(file, "split.count", absl::StrCat("a model in ", splits, " files"), "1");
  }
  ASSIGN_OR_RETURN(const int64_t experts, IntegerOr(file, "llama.expert_count", 0));
  if (experts > 0) {
    return Unsupported(file, "llama.expert_count", absl::StrCat(experts, " experts"), "0");
  }
  return absl::OkStatus();
}

absl::StatusOr<ModelConfig> ReadGgufConfig(const GgufFile& file, const GgufTokenizer& tokenizer) {
  ModelConfig config;
  ASSIGN_OR_RETURN(config.vocabulary_size, VocabularySize(file, tokenizer));
  ASSIGN_OR_RETURN(config.hidden_size, file.Integer("llama.embedding_length"));
  ASSIGN_OR_RETURN(config.layer_count, file.Integer("llama.block_count"));
  ASSIGN_OR_RETURN(config.ffn_size, file.Integer("llama.feed_forward_length"));
  ASSIGN_OR_RETURN(config.context_tokens, file.Integer("llama.context_length"));
  constexpr absl::string_view kEpsilon = "llama.attention.layer_norm_rms_epsilon";
  RETURN_IF_ERROR(file.Real(kEpsilon).status());
  ASSIGN_OR_RETURN(config.rms_norm_epsilon, RealOr(file, kEpsilon, 0));
  RETURN_IF_ERROR(ReadHeads(file, &config));
  RETURN_IF_ERROR(ReadRope(file, &config));
  ASSIGN_OR_RETURN(config.attention_bias,
                   HasBiases(file, {"attn_q", "attn_k", "attn_v", "attn_output"}));
  ASSIGN_OR_RETURN(config.mlp_bias, HasBiases(file, {"ffn_gate", "ffn_up", "ffn_down"}));
  config.tied_embeddings = file.tensors().count("output.weight") == 0;
  config.bos_token_id = tokenizer.bos_token_id;
  if (tokenizer.eos_token_id) config.eos_token_ids = {*tokenizer.eos_token_id};
  config.pad_token_id = tokenizer.pad_token_id;
  if (const absl::Status status = config.Validate(); !status.ok()) {
    return absl::DataLossError(absl::StrCat(file.path(), ": ", status.message()));
  }
  return config;
}

std::string HuggingFaceConfigJson(const ModelConfig& config) {
  const auto optional = [](const std::optional<int64_t>& value) {
    return value ? nlohmann::json(*value) : nlohmann::json(nullptr);
  };
  nlohmann::ordered_json json = {
      {"architectures", {"LlamaForCausalLM"}},
      {"model_type", "llama"},
      {"vocab_size", config.vocabulary_size},
      {"hidden_size", config.hidden_size},
      {"intermediate_size", config.ffn_size},
      {"num_hidden_layers", config.layer_count},
      {"num_attention_heads", config.head_count},
      {"num_key_value_heads", config.kv_head_count},
      {"head_dim", config.head_dim},
      {"hidden_act", "silu"},
      {"max_position_embeddings", config.context_tokens},
      {"rms_norm_eps", config.rms_norm_epsilon},
      {"rope_theta", config.rope.theta},
      {"rope_scaling", nullptr},
      {"attention_bias", config.attention_bias},
      {"mlp_bias", config.mlp_bias},
      {"tie_word_embeddings", config.tied_embeddings},
      {"bos_token_id", optional(config.bos_token_id)},
      {"eos_token_id", nullptr},
      {"pad_token_id", optional(config.pad_token_id)},
      {"torch_dtype", config.dtype},
      {"use_cache", true},
  };
  if (config.rope.kind == RopeKind::kLlama3) {
    json["rope_scaling"] = {
        {"rope_type", "llama3"},
        {"factor", config.rope.factor},
        {"low_freq_factor", config.rope.low_frequency_factor},
        {"high_freq_factor", config.rope.high_frequency_factor},
        {"original_max_position_embeddings", config.rope.original_context_tokens}};
  }
  if (config.eos_token_ids.size() == 1) {
    json["eos_token_id"] = config.eos_token_ids[0];
  } else if (!config.eos_token_ids.empty()) {
    json["eos_token_id"] = config.eos_token_ids;
  }
  return json.dump(2) + "\n";
}

}  // namespace pricer
