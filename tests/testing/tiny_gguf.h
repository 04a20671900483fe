#pragma once

#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "tests/testing/gguf_builder.h"

namespace pricer::testing {

// A GGUF file of a random Llama with two layers, right in every part until a test changes one.
// 260 tokens: the 256 bytes, "ab" (the only merge), <|begin|>, <|end|> and the user-defined
// <think>.
class TinyGguf {
 public:
  static constexpr int64_t kVocabulary = 260;
  static constexpr int64_t kHidden = 12;
  static constexpr int64_t kHeads = 2;
  static constexpr int64_t kKvHeads = 1;
  static constexpr int64_t kHeadDim = 8;
  static constexpr int64_t kFfn = 20;
  static constexpr int kLayers = 2;

  struct TensorValues {
    std::vector<int64_t> shape;
    std::vector<float> values;
  };

  TinyGguf() {
    AddArchitecture();
    AddTokenizer();
    AddTensor("token_embd.weight", {kVocabulary, kHidden});
    AddTensor("output_norm.weight", {kHidden});
    for (int layer = 0; layer < kLayers; ++layer) AddLayer("blk." + std::to_string(layer) + ".");
  }

  void Integer(const std::string& key, uint32_t value) { values[key] = {4, Raw(value)}; }
  void Real(const std::string& key, float value) { values[key] = {6, Raw(value)}; }
  void Bool(const std::string& key, bool value) { values[key] = {7, Raw<uint8_t>(value)}; }
  void String(const std::string& key, const std::string& value) {
    values[key] = {8, RawString(value)};
  }
  void Strings(const std::string& key, const std::vector<std::string>& strings) {
    std::string bytes = Raw<uint32_t>(8) + Raw<uint64_t>(strings.size());
    for (const std::string& text : strings) bytes += RawString(text);
    values[key] = {9, bytes};
  }
  void Integers(const std::string& key, const std::vector<int32_t>& integers) {
    std::string bytes = Raw<uint32_t>(5) + Raw<uint64_t>(integers.size());
    for (const int32_t value : integers) bytes += Raw(value);
    values[key] = {9, bytes};
  }
  void AddTensor(const std::string& name, const std::vector<int64_t>& shape) {
    size_t count = 1;
    for (const int64_t extent : shape) count *= extent;
    std::uniform_real_distribution<float> uniform(-1, 1);
    TensorValues tensor{shape, std::vector<float>(count)};
    for (float& value : tensor.values) value = uniform(random_);
    tensors[name] = std::move(tensor);
  }

  std::string Build() const {
    GgufBuilder builder;
    for (const auto& [key, value] : values) builder.Value(key, value.first, value.second);
    for (const auto& [name, tensor] : tensors) builder.Floats(name, tensor.shape, tensor.values);
    return builder.Build();
  }

  std::vector<std::string> tokens;
  // By key: number of the type, bytes.
  std::map<std::string, std::pair<uint32_t, std::string>> values;
  std::map<std::string, TensorValues> tensors;

 private:
  void AddArchitecture() {
    String("general.architecture", "llama");
    Integer("llama.block_count", kLayers);
    Integer("llama.context_length", 131072);
    Integer("llama.embedding_length", kHidden);
    Integer("llama.feed_forward_length", kFfn);
    Integer("llama.attention.head_count", kHeads);
    Integer("llama.attention.head_count_kv", kKvHeads);
    Integer("llama.attention.key_length", kHeadDim);
    Integer("llama.attention.value_length", kHeadDim);
    Integer("llama.rope.dimension_count", kHeadDim);
    Real("llama.rope.freq_base", 500000.0f);
    Real("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  }

  // GPT-2's spelling of bytes: printable Latin-1 as itself, the others from U+0100 on.
  static std::string SpellByte(int byte, int* next) {
    const bool printable =
        (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xff && byte != 0xad);
    const int code = printable ? byte : (*next)++;
    if (code < 0x80) return std::string(1, static_cast<char>(code));
    return {static_cast<char>(0xc0 | code >> 6), static_cast<char>(0x80 | (code & 0x3f))};
  }

  void AddTokenizer() {
    int next = 0x100;
    for (int byte = 0; byte < 256; ++byte) tokens.push_back(SpellByte(byte, &next));
    for (const char* token : {"ab", "<|begin|>", "<|end|>", "<think>"}) tokens.push_back(token);
    std::vector<int32_t> kinds(kVocabulary, 1);
    kinds[257] = kinds[258] = 3;
    kinds[259] = 4;
    String("tokenizer.ggml.model", "gpt2");
    String("tokenizer.ggml.pre", "smollm");
    Strings("tokenizer.ggml.tokens", tokens);
    Strings("tokenizer.ggml.merges", {"a b"});
    Integers("tokenizer.ggml.token_type", kinds);
    Integer("tokenizer.ggml.bos_token_id", 257);
    Integer("tokenizer.ggml.eos_token_id", 258);
  }

  void AddLayer(const std::string& prefix) {
    AddTensor(prefix + "attn_norm.weight", {kHidden});
    AddTensor(prefix + "attn_q.weight", {kHeads * kHeadDim, kHidden});
    AddTensor(prefix + "attn_k.weight", {kKvHeads * kHeadDim, kHidden});
    AddTensor(prefix + "attn_v.weight", {kKvHeads * kHeadDim, kHidden});
    AddTensor(prefix + "attn_output.weight", {kHidden, kHeads * kHeadDim});
    AddTensor(prefix + "ffn_norm.weight", {kHidden});
    AddTensor(prefix + "ffn_gate.weight", {kFfn, kHidden});
    AddTensor(prefix + "ffn_up.weight", {kFfn, kHidden});
    AddTensor(prefix + "ffn_down.weight", {kHidden, kFfn});
  }

  std::mt19937 random_{11};
};

}  // namespace pricer::testing
