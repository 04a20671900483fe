#include "model/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/file.h"
#include "base/sha256.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace pricer {
namespace {

using ::pricer::testing::IsOkAndHolds;
using ::pricer::testing::StatusIs;
using ::pricer::testing::TempDir;
using ::testing::AllOf;
using ::testing::HasSubstr;
using Json = nlohmann::json;

constexpr auto kDataLoss = absl::StatusCode::kDataLoss;
constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;

// A checkpoint in memory that tests spoil before they write it.
class CheckpointTest : public ::testing::Test {
 protected:
  struct Tensor {
    Dtype dtype = Dtype::kF32;
    std::vector<int64_t> shape;
    std::string bytes = "";  // empty = made up
  };

  CheckpointTest() {
    config_ = {{"architectures", Json::array({"LlamaForCausalLM"})},
               {"model_type", "llama"},
               {"vocab_size", 20},
               {"hidden_size", 16},
               {"intermediate_size", 24},
               {"num_hidden_layers", 2},
               {"num_attention_heads", 2},
               {"num_key_value_heads", 1},
               {"head_dim", 8},
               {"attention_bias", true}};
    Add("model.embed_tokens.weight", {20, 16});
    Add("model.norm.weight", {16});
    Add("lm_head.weight", {20, 16});
    for (const char* layer : {"model.layers.0.", "model.layers.1."}) {
      for (const char* norm : {"input_layernorm", "post_attention_layernorm"}) {
        Add(absl::StrCat(layer, norm, ".weight"), {16});
      }
      for (const char* name : {"q", "k", "v", "o"}) {
        const bool narrow = *name == 'k' || *name == 'v';
        const std::string module = absl::StrCat(layer, "self_attn.", name, "_proj");
        Add(module + ".weight", {narrow ? 8 : 16, 16});
        Add(module + ".bias", {narrow ? 8 : 16});
      }
      Add(absl::StrCat(layer, "mlp.gate_proj.weight"), {24, 16});
      Add(absl::StrCat(layer, "mlp.up_proj.weight"), {24, 16});
      Add(absl::StrCat(layer, "mlp.down_proj.weight"), {16, 24});
    }
  }

  void Add(const std::string& name, std::vector<int64_t> shape, Dtype dtype = Dtype::kF32) {
    tensors_[name] = {dtype, std::move(shape), ""};
  }

  // Puts a module into bitsandbytes' form.
  void Quantize(const std::string& module, std::vector<int64_t> shape, bool nested = true) {
    std::vector<float> values(shape[0] * shape[1]);
    for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 7) - 3.0f;
    const Nf4Serialized stored =
        SerializeNf4(*QuantizeNf4(values, std::move(shape), Dtype::kF32, nested));
    for (const auto& [suffix, view] : stored.parts) {
      tensors_[absl::StrCat(module, ".weight", suffix)] = {view.dtype, view.shape,
                                                           std::string(view.data)};
    }
  }

  void DeclareNf4() {
    config_["quantization_config"] = {{"quant_method", "bitsandbytes"},
                                      {"load_in_4bit", true},
                                      {"load_in_8bit", false},
                                      {"bnb_4bit_quant_type", "nf4"}};
  }

  // Bytes that differ from tensor to tensor, small as fp32 numbers.
  std::string BytesOf(const std::string& name, const Tensor& tensor) const {
    std::string bytes = tensor.bytes;
    bytes.resize(TensorView{tensor.dtype, tensor.shape, ""}.element_count() *
                 DtypeBytes(tensor.dtype));
    if (!tensor.bytes.empty()) return bytes;
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(name[i % name.size()]);
    return bytes;
  }

  void WriteTensors(const std::string& file, const std::map<std::string, Tensor>& tensors) {
    std::map<std::string, std::string> storage;
    std::vector<NamedTensor> named;
    for (const auto& [name, tensor] : tensors) {
      const std::string& bytes = storage[name] = BytesOf(name, tensor);
      named.push_back({name, {tensor.dtype, tensor.shape, bytes}});
    }
    ASSERT_OK(WriteSafetensors(dir_.File(file), named, {{"format", "pt"}}));
  }

  void WriteConfig() { ASSERT_OK(WriteFile(dir_.File("config.json"), config_.dump())); }

  absl::StatusOr<std::unique_ptr<Checkpoint>> Open() {
    WriteConfig();
    WriteTensors("model.safetensors", tensors_);
    return Checkpoint::Open(dir_.path());
  }

  // Two shards and their index: names up to "model.layers.1" in the first.
  void WriteShards() {
    WriteConfig();
    std::map<std::string, Tensor> shards[2];
    for (const auto& [name, tensor] : tensors_) {
      const int shard = name < "model.layers.1" ? 0 : 1;
      shards[shard][name] = tensor;
      index_["weight_map"][name] = absl::StrCat("shard-", shard, ".safetensors");
    }
    WriteTensors("shard-0.safetensors", shards[0]);
    WriteTensors("shard-1.safetensors", shards[1]);
  }

  absl::StatusOr<std::unique_ptr<Checkpoint>> OpenShards() {
    EXPECT_OK(WriteFile(dir_.File("model.safetensors.index.json"), index_.dump()));
    return Checkpoint::Open(dir_.path());
  }

  void ExpectCorrupt(const std::string& tensor, const std::string& problem) {
    EXPECT_THAT(Open(),
                StatusIs(kDataLoss, AllOf(HasSubstr(dir_.path()), HasSubstr("'" + tensor + "'"),
                                          HasSubstr(problem))));
  }

  const TempDir dir_;
  Json config_;
  Json index_;
  std::map<std::string, Tensor> tensors_;
};

TEST_F(CheckpointTest, OpensAWholeFile) {
  ASSERT_OK_AND_ASSIGN(const auto checkpoint, Open());
  EXPECT_EQ(checkpoint->config().layer_count, 2);
  EXPECT_EQ(checkpoint->tensors().size(), tensors_.size());
  EXPECT_EQ(checkpoint->tensor("model.norm.weight").ToString(), "F32 [16]");
  EXPECT_EQ(checkpoint->FileOf("model.norm.weight"), dir_.File("model.safetensors"));
  EXPECT_TRUE(checkpoint->has_tensor("lm_head.weight"));
  EXPECT_FALSE(checkpoint->has_tensor("model.layers.2.input_layernorm.weight"));
  EXPECT_FALSE(checkpoint->IsNf4("model.layers.0.self_attn.q_proj"));
  EXPECT_EQ(checkpoint->directory(), dir_.path());
  EXPECT_EQ(checkpoint->tokenizer_path(), dir_.File("tokenizer.json"));
}

TEST_F(CheckpointTest, AcceptsATrailingSlash) {
  ASSERT_OK(Open());
  ASSERT_OK_AND_ASSIGN(const auto checkpoint, Checkpoint::Open(dir_.path() + "/"));
  EXPECT_EQ(checkpoint->directory(), dir_.path());
}

TEST_F(CheckpointTest, OpensShards) {
  WriteShards();
  ASSERT_OK_AND_ASSIGN(const auto checkpoint, OpenShards());
  EXPECT_EQ(checkpoint->tensors().size(), tensors_.size());
  EXPECT_EQ(checkpoint->FileOf("lm_head.weight"), dir_.File("shard-0.safetensors"));
  EXPECT_EQ(checkpoint->FileOf("model.norm.weight"), dir_.File("shard-1.safetensors"));
}

TEST_F(CheckpointTest, AcceptsHalfPrecision) {
  tensors_["model.norm.weight"].dtype = Dtype::kBF16;
  tensors_["lm_head.weight"].dtype = Dtype::kF16;
  EXPECT_OK(Open());
}

TEST_F(CheckpointTest, SaysWhatIsNotThere) {
  EXPECT_THAT(Checkpoint::Open(dir_.path()),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("config.json")));
  WriteConfig();
  EXPECT_THAT(Checkpoint::Open(dir_.path()),
              StatusIs(absl::StatusCode::kNotFound,
                       AllOf(HasSubstr(dir_.path()), HasSubstr("model.safetensors.index.json"))));
}

TEST_F(CheckpointTest, NamesAnyMissingTensor) {
  const auto whole = tensors_;
  for (const auto& [name, tensor] : whole) {
    tensors_ = whole;
    tensors_.erase(name);
    ExpectCorrupt(name, "is missing");
  }
}

TEST_F(CheckpointTest, NamesAnyTensorOfAnotherShape) {
  const auto whole = tensors_;
  for (const auto& [name, tensor] : whole) {
    tensors_ = whole;
    tensors_[name].shape.back() += 1;
    ExpectCorrupt(
        name, absl::StrCat("expected shape [", absl::StrJoin(tensor.shape, ", "), "], got F32 [",
                           absl::StrJoin(tensors_[name].shape, ", "), "]"));
  }
}

TEST_F(CheckpointTest, NamesAnExtraTensor) {
  for (const char* name : {"model.layers.2.self_attn.q_proj.weight", "score.weight",
                           "model.layers.0.mlp.gate_proj.bias", "embed_tokens.weight",
                           "model.layers.00.self_attn.q_proj.weight"}) {
    Add(name, {16});
    ExpectCorrupt(name, "extra tensor");
    EXPECT_THAT(Open(), StatusIs(kDataLoss, HasSubstr("model.safetensors: ")));
    tensors_.erase(name);
  }
}

TEST_F(CheckpointTest, NamesATensorOfAnotherDtype) {
  tensors_["model.norm.weight"].dtype = Dtype::kF64;
  ExpectCorrupt("model.norm.weight", "expected dtype F32, BF16, F16, got F64 [16]");
}

TEST_F(CheckpointTest, IgnoresRotaryBuffers) {
  Add("model.layers.0.self_attn.rotary_emb.inv_freq", {4});
  Add("model.rotary_emb.inv_freq", {4});
  ASSERT_OK_AND_ASSIGN(const auto checkpoint, Open());
  EXPECT_FALSE(checkpoint->has_tensor("model.rotary_emb.inv_freq"));
}

TEST_F(CheckpointTest, IgnoresATiedHeadThatEqualsTheEmbedding) {
  config_["tie_word_embeddings"] = true;
  tensors_["lm_head.weight"].bytes =
      BytesOf("model.embed_tokens.weight", tensors_["model.embed_tokens.weight"]);
  ASSERT_OK_AND_ASSIGN(const auto stored, Open());
  EXPECT_FALSE(stored->has_tensor("lm_head.weight"));
  EXPECT_TRUE(stored->config().tied_embeddings);
  ASSERT_OK_AND_ASSIGN(const std::string fingerprint, stored->Fingerprint());
  tensors_.erase("lm_head.weight");
  ASSERT_OK_AND_ASSIGN(const auto absent, Open());
  EXPECT_TRUE(absent->config().tied_embeddings);
  EXPECT_THAT(absent->Fingerprint(), IsOkAndHolds(fingerprint));
}

TEST_F(CheckpointTest, UsesATiedHeadThatDiffersFromTheEmbedding) {
  ASSERT_OK_AND_ASSIGN(const auto untied, Open());
  ASSERT_OK_AND_ASSIGN(const std::string fingerprint, untied->Fingerprint());
  config_["tie_word_embeddings"] = true;
  ASSERT_OK_AND_ASSIGN(const auto checkpoint, Open());
  EXPECT_TRUE(checkpoint->has_tensor("lm_head.weight"));
  EXPECT_FALSE(checkpoint->config().tied_embeddings);
  EXPECT_THAT(checkpoint->Fingerprint(), IsOkAndHolds(fingerprint));
  tensors_["lm_head.weight"].shape = {20, 15};
  ExpectCorrupt("lm_head.weight", "expected the embedding's shape [20, 16]");
}

TEST_F(CheckpointTest, RefusesABiasThatTheConfigDoesNotHave) {
  config_["attention_bias"] = false;
  ExpectCorrupt("model.layers.0.self_attn.k_proj.bias", "extra tensor");
}

TEST_F(CheckpointTest, RefusesAnIndexThatDisagreesWithItsShards) {
  WriteShards();
  index_["weight_map"]["model.norm.weight"] = "shard-0.safetensors";
  EXPECT_THAT(OpenShards(),
              StatusIs(kDataLoss, AllOf(HasSubstr("index.json"), HasSubstr("'model.norm.weight'"),
                                        HasSubstr("expected in 'shard-0.safetensors'"),
                                        HasSubstr("shard-1.safetensors"))));
  index_["weight_map"].erase("model.norm.weight");
  EXPECT_THAT(OpenShards(), StatusIs(kDataLoss, AllOf(HasSubstr("shard-1.safetensors"),
                                                      HasSubstr("'model.norm.weight' is not in"))));
  index_["weight_map"]["model.norm.weight"] = "shard-1.safetensors";
  index_["weight_map"]["ghost"] = "shard-1.safetensors";
  EXPECT_THAT(OpenShards(),
              StatusIs(kDataLoss, AllOf(HasSubstr("'ghost'"), HasSubstr("in no shard"))));
}

TEST_F(CheckpointTest, RefusesATensorInTwoShards) {
  WriteShards();
  std::map<std::string, Tensor> doubled = {{"model.norm.weight", tensors_["model.norm.weight"]}};
  WriteTensors("shard-2.safetensors", doubled);
  index_["weight_map"]["other"] = "shard-2.safetensors";
  EXPECT_THAT(OpenShards(), StatusIs(kDataLoss, AllOf(HasSubstr("shard-2.safetensors"),
                                                      HasSubstr("'model.norm.weight' is also in"),
                                                      HasSubstr("shard-1.safetensors"))));
}

TEST_F(CheckpointTest, RefusesABrokenIndex) {
  WriteShards();
  const Json whole = index_;
  for (const char* file : {"../shard-0.safetensors", "/etc/passwd", "", ".."}) {
    index_["weight_map"]["model.norm.weight"] = file;
    EXPECT_THAT(OpenShards(),
                StatusIs(kDataLoss, AllOf(HasSubstr("weight_map"), HasSubstr("plain file name"))));
  }
  index_ = whole;
  index_["weight_map"]["x"] = "absent.safetensors";
  EXPECT_THAT(OpenShards(), StatusIs(absl::StatusCode::kNotFound, HasSubstr("absent.safetensors")));
  index_ = Json::object();
  EXPECT_THAT(OpenShards(), StatusIs(kDataLoss, HasSubstr("weight_map")));
  index_ = {{"weight_map", {{"x", 3}}}};
  EXPECT_THAT(OpenShards(), StatusIs(kDataLoss, HasSubstr("weight_map")));
}

TEST_F(CheckpointTest, NamesTheShardThatIsBroken) {
  WriteShards();
  ASSERT_OK(WriteFile(dir_.File("shard-1.safetensors"), "short"));
  EXPECT_THAT(OpenShards(), StatusIs(kDataLoss, HasSubstr("shard-1.safetensors: short file")));
}

TEST_F(CheckpointTest, RefusesOtherModelsThanCausalOnes) {
  config_["architectures"] = Json::array({"LlamaForSequenceClassification"});
  EXPECT_THAT(Open(), StatusIs(kUnimplemented, AllOf(HasSubstr("config.json"),
                                                     HasSubstr("LlamaForSequenceClassification"))));
}

class Nf4CheckpointTest : public CheckpointTest {
 protected:
  Nf4CheckpointTest() {
    DeclareNf4();
    Quantize(kModule, {16, 16});
    Quantize("model.layers.1.mlp.down_proj", {16, 24}, /*nested=*/false);
  }

  static constexpr const char* kModule = "model.layers.0.self_attn.q_proj";
  const std::string weight_ = std::string(kModule) + ".weight";
};

TEST_F(Nf4CheckpointTest, DecidesForEachModuleByItsKeys) {
  ASSERT_OK_AND_ASSIGN(const auto checkpoint, Open());
  EXPECT_TRUE(checkpoint->IsNf4(kModule));
  EXPECT_TRUE(checkpoint->IsNf4("model.layers.1.mlp.down_proj"));
  EXPECT_FALSE(checkpoint->IsNf4("model.layers.1.self_attn.q_proj"));
}

TEST_F(Nf4CheckpointTest, AcceptsAQuantizedHead) {
  Quantize("lm_head", {20, 16});
  ASSERT_OK_AND_ASSIGN(const auto checkpoint, Open());
  EXPECT_TRUE(checkpoint->IsNf4("lm_head"));
  EXPECT_OK(checkpoint->ReadNf4("lm_head"));
}

TEST_F(Nf4CheckpointTest, AcceptsOtherStorageDtypesOfTheSameBytes) {
  Add(weight_, {64, 1}, Dtype::kBF16);
  EXPECT_OK(Open());
  Add(weight_, {65, 1}, Dtype::kBF16);
  ExpectCorrupt(weight_, "or the same 128 bytes as I8, F32, F16 or BF16, got BF16 [65, 1]");
}

TEST_F(Nf4CheckpointTest, RefusesWhatCouldNotBeDecoded) {
  Add(weight_, {128}, Dtype::kU8);
  ExpectCorrupt(weight_, "NF4 weight: expected U8 [128, 1]");
  Quantize(kModule, {8, 32});
  ExpectCorrupt(weight_, "expected shape [16, 16], got NF4 [8, 32]");
  Quantize(kModule, {16, 16});
  tensors_[weight_ + ".quant_map"].bytes[0] ^= 1;
  ExpectCorrupt(weight_, "NF4 quant_map: entry 0");
  Quantize(kModule, {16, 16});
  tensors_[weight_ + ".quant_state.bitsandbytes__nf4"].bytes[0] = '[';
  ExpectCorrupt(weight_, "quant_state.bitsandbytes__nf4");
}

TEST_F(Nf4CheckpointTest, NamesAWeightThatIsNotFinite) {
  tensors_[weight_ + ".nested_absmax"].bytes = std::string("\0\0\xc0\x7f", 4);
  ASSERT_OK_AND_ASSIGN(const auto checkpoint, Open());
  EXPECT_OK(checkpoint->ReadNf4("model.layers.1.mlp.down_proj"));
  EXPECT_THAT(checkpoint->ReadNf4(kModule),
              StatusIs(kDataLoss, AllOf(HasSubstr("model.safetensors"), HasSubstr(weight_),
                                        HasSubstr("nested_absmax"))));
}

TEST_F(Nf4CheckpointTest, NamesAnyMissingPart) {
  const auto whole = tensors_;
  for (const char* part : {"", ".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map"}) {
    tensors_ = whole;
    tensors_.erase(weight_ + part);
    ExpectCorrupt(weight_, absl::StrCat("NF4 ", *part == 0 ? "weight" : part + 1, ": is missing"));
  }
}

TEST_F(Nf4CheckpointTest, NamesAnyPartOfTheWrongSize) {
  const auto whole = tensors_;
  for (const char* part : {".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map"}) {
    tensors_ = whole;
    tensors_[weight_ + part].shape = {3};
    ExpectCorrupt(weight_, absl::StrCat("NF4 ", part + 1, ": expected "));
  }
  tensors_ = whole;
  tensors_[weight_ + ".quant_state.bitsandbytes__nf4"].shape = {70000};
  ExpectCorrupt(weight_, "at most 65536 bytes");
  tensors_ = whole;
  tensors_[weight_ + ".absmax"].dtype = Dtype::kBF16;
  ExpectCorrupt(weight_, "NF4 absmax: expected U8 [4], got BF16 [4]");
}

TEST_F(Nf4CheckpointTest, RefusesNestedPartsWithoutNesting) {
  Add("model.layers.1.mlp.down_proj.weight.nested_absmax", {1});
  ExpectCorrupt("model.layers.1.mlp.down_proj.weight", "NF4 nested_absmax: is there");
}

TEST_F(Nf4CheckpointTest, RefusesTheFormWhereTheConfigDoesNotSaySo) {
  config_.erase("quantization_config");
  ExpectCorrupt(weight_ + ".quant_state.bitsandbytes__nf4", "no quantization_config");
}

TEST_F(Nf4CheckpointTest, RefusesOtherQuantizationsByName) {
  Json& quantization = config_["quantization_config"];
  quantization["bnb_4bit_quant_type"] = "fp4";
  EXPECT_THAT(Open(),
              StatusIs(kUnimplemented, AllOf(HasSubstr("quantization_config.bnb_4bit_quant_type"),
                                             HasSubstr("'fp4'"))));
  quantization["load_in_4bit"] = false;
  EXPECT_THAT(Open(), StatusIs(kUnimplemented, HasSubstr("load_in_4bit")));
  quantization["quant_method"] = "gptq";
  EXPECT_THAT(Open(), StatusIs(kUnimplemented, HasSubstr("'gptq'")));
}

TEST_F(Nf4CheckpointTest, RefusesFp4ByName) {
  Add("model.layers.1.mlp.up_proj.weight.quant_state.bitsandbytes__fp4", {80}, Dtype::kU8);
  EXPECT_THAT(Open(), StatusIs(kUnimplemented,
                               AllOf(HasSubstr("bitsandbytes__fp4"), HasSubstr("fp4 is not"))));
}

TEST_F(CheckpointTest, OpensTheDecoderOfAClassifierAlone) {
  config_["architectures"] = Json::array({"LlamaForSequenceClassification"});
  tensors_.erase("lm_head.weight");
  Add("score.weight", {5, 16});
  EXPECT_THAT(Open(), StatusIs(kUnimplemented, HasSubstr("LlamaForSequenceClassification")));
  ASSERT_OK_AND_ASSIGN(const auto decoder, Checkpoint::OpenDecoder(dir_.path()));
  EXPECT_TRUE(decoder->config().tied_embeddings);
  EXPECT_FALSE(decoder->has_tensor("score.weight"));
  EXPECT_TRUE(decoder->has_tensor("model.norm.weight"));
}

TEST_F(CheckpointTest, OpensTheDecoderOfALanguageModelWithoutItsHead) {
  ASSERT_OK_AND_ASSIGN(const auto whole, Open());
  EXPECT_TRUE(whole->has_tensor("lm_head.weight"));
  ASSERT_OK_AND_ASSIGN(const auto decoder, Checkpoint::OpenDecoder(dir_.path()));
  EXPECT_TRUE(decoder->config().tied_embeddings);
  EXPECT_EQ(decoder->tensors().size(), whole->tensors().size() - 1);
}

TEST_F(CheckpointTest, ADecoderIsAsStrictAboutItsOwnTensors) {
  Add("scores.weight", {5, 16});
  ASSERT_THAT(Open(), StatusIs(kDataLoss));
  EXPECT_THAT(Checkpoint::OpenDecoder(dir_.path()),
              StatusIs(kDataLoss, HasSubstr("scores.weight")));
  config_["model_type"] = "mistral";
  WriteConfig();
  EXPECT_THAT(Checkpoint::OpenDecoder(dir_.path()), StatusIs(kUnimplemented, HasSubstr("mistral")));
}

TEST_F(CheckpointTest, FingerprintIsTheDigestThatTheHeaderDescribes) {
  Add("model.embed_tokens.weight", {20000, 16});
  Add("lm_head.weight", {20000, 16});
  config_["vocab_size"] = 20000;
  ASSERT_OK_AND_ASSIGN(const auto checkpoint, Open());
  ASSERT_OK(WriteFile(dir_.File("tokenizer.json"), "{\"tokenizer\": 1}"));
  std::string text =
      checkpoint->config().ArchitectureJson() + "\n" + Sha256Hex("{\"tokenizer\": 1}") + "\n";
  for (const auto& [name, tensor] : tensors_) {
    std::string ends = BytesOf(name, tensor);
    if (ends.size() > 131072) ends = ends.substr(0, 65536) + ends.substr(ends.size() - 65536);
    absl::StrAppend(&text, name, " [", absl::StrJoin(tensor.shape, ","), "] ", Sha256Hex(ends),
                    "\n");
  }
  EXPECT_THAT(checkpoint->Fingerprint(), IsOkAndHolds(Sha256Hex(text)));
}

TEST_F(CheckpointTest, FingerprintKnowsNoFileLayout) {
  ASSERT_OK_AND_ASSIGN(const auto whole, Open());
  ASSERT_OK_AND_ASSIGN(const std::string expected, whole->Fingerprint());
  std::filesystem::remove(dir_.File("model.safetensors"));
  Add("model.rotary_emb.inv_freq", {4});
  config_["torch_dtype"] = "float32";
  WriteShards();
  ASSERT_OK_AND_ASSIGN(const auto sharded, OpenShards());
  EXPECT_THAT(sharded->Fingerprint(), IsOkAndHolds(expected));
}

TEST_F(CheckpointTest, FingerprintChangesWithEveryPart) {
  ASSERT_OK_AND_ASSIGN(const auto first, Open());
  ASSERT_OK_AND_ASSIGN(const std::string expected, first->Fingerprint());
  ASSERT_OK(WriteFile(dir_.File("tokenizer.json"), "x"));
  ASSERT_OK_AND_ASSIGN(const std::string with_tokenizer, first->Fingerprint());
  EXPECT_NE(with_tokenizer, expected);
  std::filesystem::remove(dir_.File("tokenizer.json"));
  config_["rms_norm_eps"] = 1e-4;
  ASSERT_OK_AND_ASSIGN(const auto second, Open());
  ASSERT_OK_AND_ASSIGN(const std::string with_epsilon, second->Fingerprint());
  EXPECT_NE(with_epsilon, expected);
  config_.erase("rms_norm_eps");
  ASSERT_OK(Open());
  ASSERT_OK_AND_ASSIGN(std::string bytes, ReadFile(dir_.File("model.safetensors")));
  bytes.back() ^= 1;
  ASSERT_OK(WriteFile(dir_.File("model.safetensors"), bytes));
  ASSERT_OK_AND_ASSIGN(const auto third, Checkpoint::Open(dir_.path()));
  ASSERT_OK_AND_ASSIGN(const std::string with_weight, third->Fingerprint());
  EXPECT_NE(with_weight, expected);
}

TEST_F(Nf4CheckpointTest, FingerprintIsTheDeclaredOneOfTheUnquantizedBase) {
  const std::string declared(64, 'a');
  config_["pricer_base_fingerprint"] = declared;
  ASSERT_OK_AND_ASSIGN(const auto checkpoint, Open());
  EXPECT_THAT(checkpoint->Fingerprint(), IsOkAndHolds(declared));
  config_["pricer_base_fingerprint"] = "abc";
  EXPECT_THAT(Open(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("pricer_base_fingerprint")));
}

TEST_F(CheckpointTest, FingerprintOfAnUnquantizedBaseCannotBeDeclared) {
  const std::string declared(64, 'a');
  config_["pricer_base_fingerprint"] = declared;
  ASSERT_OK_AND_ASSIGN(const auto checkpoint, Open());
  ASSERT_OK_AND_ASSIGN(const std::string fingerprint, checkpoint->Fingerprint());
  EXPECT_NE(fingerprint, declared);
}

}  // namespace
}  // namespace pricer
