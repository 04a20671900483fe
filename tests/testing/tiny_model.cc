#include "tests/testing/tiny_model.h"

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <numbers>
#include <random>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "model/safetensors.h"

namespace pricer::testing {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kFirstByteId = 3;

class RandomTensors {
 public:
  explicit RandomTensors(uint64_t seed) : engine_(seed) {}

  void Add(const std::string& name, std::vector<int64_t> shape, double mean, double deviation) {
    int64_t count = 1;
    for (int64_t extent : shape) count *= extent;
    std::vector<float>& values = values_[name];
    for (int64_t i = 0; i < count; ++i) {
      values.push_back(static_cast<float>(mean + deviation * Normal()));
    }
    shapes_[name] = std::move(shape);
  }

  void AddLinear(const std::string& module, int64_t out, int64_t in) {
    Add(module + ".weight", {out, in}, 0.0, 1.0 / std::sqrt(static_cast<double>(in)));
  }

  absl::Status Write(const std::string& path) const {
    std::vector<NamedTensor> tensors;
    for (const auto& [name, values] : values_) {
      const char* bytes = reinterpret_cast<const char*>(values.data());
      tensors.push_back({name,
                         {.dtype = Dtype::kF32,
                          .shape = shapes_.at(name),
                          .data = {bytes, values.size() * sizeof(float)}}});
    }
    return WriteSafetensors(path, tensors, {{"format", "pt"}});
  }

 private:
  // By Box and Muller; std::normal_distribution differs between libraries.
  double Normal() {
    const double radius = std::sqrt(-2.0 * std::log(Uniform()));
    return radius * std::cos(2.0 * std::numbers::pi * Uniform());
  }
  double Uniform() { return (static_cast<double>(engine_() >> 11) + 0.5) * 0x1p-53; }

  std::mt19937_64 engine_;
  std::map<std::string, std::vector<float>> values_;
  std::map<std::string, std::vector<int64_t>> shapes_;
};

absl::Status WriteWeights(const std::string& directory, const TinyModelOptions& options) {
  const int64_t hidden = options.hidden_size;
  const int64_t head_dim = hidden / options.head_count;
  const int64_t kv_size = head_dim * options.kv_head_count;
  RandomTensors tensors(options.seed);
  tensors.Add("model.embed_tokens.weight", {options.vocabulary_size, hidden}, 0.0, 1.0);
  for (int64_t i = 0; i < options.layer_count; ++i) {
    const std::string layer = absl::StrCat("model.layers.", i, ".");
    tensors.Add(layer + "input_layernorm.weight", {hidden}, 1.0, 0.1);
    tensors.AddLinear(layer + "self_attn.q_proj", hidden, hidden);
    tensors.AddLinear(layer + "self_attn.k_proj", kv_size, hidden);
    tensors.AddLinear(layer + "self_attn.v_proj", kv_size, hidden);
    tensors.AddLinear(layer + "self_attn.o_proj", hidden, hidden);
    tensors.Add(layer + "post_attention_layernorm.weight", {hidden}, 1.0, 0.1);
    tensors.AddLinear(layer + "mlp.gate_proj", options.ffn_size, hidden);
    tensors.AddLinear(layer + "mlp.up_proj", options.ffn_size, hidden);
    tensors.AddLinear(layer + "mlp.down_proj", hidden, options.ffn_size);
  }
  tensors.Add("model.norm.weight", {hidden}, 1.0, 0.1);
  if (!options.tied_embeddings) tensors.AddLinear("lm_head", options.vocabulary_size, hidden);
  return tensors.Write(directory + "/model.safetensors");
}

std::string ConfigJson(const TinyModelOptions& options) {
  Json json;
  json["architectures"] = {"LlamaForCausalLM"};
  json["model_type"] = "llama";
  json["hidden_act"] = "silu";
  json["vocab_size"] = options.vocabulary_size;
  json["hidden_size"] = options.hidden_size;
  json["intermediate_size"] = options.ffn_size;
  json["num_hidden_layers"] = options.layer_count;
  json["num_attention_heads"] = options.head_count;
  json["num_key_value_heads"] = options.kv_head_count;
  json["max_position_embeddings"] = 2048;
  json["rms_norm_eps"] = 1e-5;
  json["rope_theta"] = 10000.0;
  json["attention_bias"] = false;
  json["mlp_bias"] = false;
  json["tie_word_embeddings"] = options.tied_embeddings;
  json["bos_token_id"] = 1;
  json["eos_token_id"] = 2;
  json["pad_token_id"] = 0;
  json["torch_dtype"] = "float32";
  return json.dump(2) + "\n";
}

std::string Utf8(int code_point) {
  if (code_point < 0x80) return std::string(1, static_cast<char>(code_point));
  return {static_cast<char>(0xc0 | code_point >> 6), static_cast<char>(0x80 | (code_point & 0x3f))};
}

// The printable stand-in of a byte in byte-level BPE: printable bytes stand for themselves, the
// others for the code points from 256 on, in order.
std::vector<std::string> ByteTokens() {
  std::vector<std::string> tokens;
  int next = 256;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable =
        (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    tokens.push_back(Utf8(printable ? byte : next++));
  }
  return tokens;
}

std::string TokenizerJson() {
  Json byte_level = {{"type", "ByteLevel"},
                     {"add_prefix_space", false},
                     {"trim_offsets", true},
                     {"use_regex", false}};
  Json vocabulary = Json::object();
  Json added = Json::array();
  int64_t id = 0;
  for (const char* token : {"<pad>", "<bos>", "<eos>"}) {
    added.push_back({{"id", id},
                     {"content", token},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
    vocabulary[token] = id++;
  }
  id = kFirstByteId;
  for (const std::string& token : ByteTokens()) vocabulary[token] = id++;
  Json model = {{"type", "BPE"},
                {"dropout", nullptr},
                {"unk_token", nullptr},
                {"continuing_subword_prefix", nullptr},
                {"end_of_word_suffix", nullptr},
                {"fuse_unk", false},
                {"byte_fallback", false},
                {"vocab", vocabulary},
                {"merges", Json::array()}};
  Json json = {{"version", "1.0"},          {"truncation", nullptr}, {"padding", nullptr},
               {"added_tokens", added},     {"normalizer", nullptr}, {"pre_tokenizer", byte_level},
               {"post_processor", nullptr}, {"decoder", byte_level}, {"model", model}};
  return json.dump() + "\n";
}

}  // namespace

absl::Status WriteTinyCheckpoint(const std::string& directory, const TinyModelOptions& options) {
  RETURN_IF_ERROR(MakeDirectories(directory));
  RETURN_IF_ERROR(WriteFile(directory + "/config.json", ConfigJson(options)));
  RETURN_IF_ERROR(WriteWeights(directory, options));
  if (!options.tokenizer) return absl::OkStatus();
  return WriteFile(directory + "/tokenizer.json", TokenizerJson());
}

}  // namespace pricer::testing
