#include "model/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace pricer {
namespace {

using ::pricer::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Json = nlohmann::json;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;

Json Version5() {
  return Json::parse(R"({
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
    "vocab_size": 300, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3,
    "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 10,
    "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "tie_word_embeddings": true,
    "attention_bias": true, "mlp_bias": true, "bos_token_id": 1, "eos_token_id": [2, 3],
    "pad_token_id": 0, "dtype": "bfloat16",
    "rope_parameters": {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0,
      "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
  })");
}

Json Version4() {
  Json json = Version5();
  json["rope_theta"] = 500000.0;
  json["rope_scaling"] = json["rope_parameters"];
  json["rope_scaling"].erase("rope_theta");
  json["torch_dtype"] = json["dtype"];
  json.erase("rope_parameters");
  json.erase("dtype");
  return json;
}

absl::StatusOr<ModelConfig> Parse(const Json& json) {
  return ModelConfig::FromJson(json.dump(), "dir/config.json");
}

absl::Status ErrorOf(const Json& json) { return Parse(json).status(); }

absl::Status ErrorWith(const char* field, const Json& value) {
  Json json = Version5();
  json[field] = value;
  return ErrorOf(json);
}

void ExpectAllFields(const ModelConfig& config) {
  EXPECT_EQ(config.vocabulary_size, 300);
  EXPECT_EQ(config.hidden_size, 48);
  EXPECT_EQ(config.ffn_size, 80);
  EXPECT_EQ(config.layer_count, 3);
  EXPECT_EQ(config.head_count, 6);
  EXPECT_EQ(config.kv_head_count, 2);
  EXPECT_EQ(config.head_dim, 10);
  EXPECT_EQ(config.context_tokens, 4096);
  EXPECT_EQ(config.rms_norm_epsilon, 1e-5);
  EXPECT_TRUE(config.tied_embeddings);
  EXPECT_TRUE(config.attention_bias);
  EXPECT_TRUE(config.mlp_bias);
  EXPECT_EQ(config.bos_token_id, 1);
  EXPECT_THAT(config.eos_token_ids, ElementsAre(2, 3));
  EXPECT_EQ(config.pad_token_id, 0);
  EXPECT_EQ(config.dtype, "bfloat16");
  EXPECT_EQ(config.rope.kind, RopeKind::kLlama3);
  EXPECT_EQ(config.rope.theta, 500000.0);
  EXPECT_EQ(config.rope.factor, 32.0);
  EXPECT_EQ(config.rope.low_frequency_factor, 1.0);
  EXPECT_EQ(config.rope.high_frequency_factor, 4.0);
  EXPECT_EQ(config.rope.original_context_tokens, 8192);
}

TEST(ModelConfigTest, ReadsTheFieldsOfVersion5) {
  ASSERT_OK_AND_ASSIGN(const ModelConfig config, Parse(Version5()));
  ExpectAllFields(config);
}

TEST(ModelConfigTest, ReadsTheFieldsOfVersion4) {
  ASSERT_OK_AND_ASSIGN(const ModelConfig config, Parse(Version4()));
  ExpectAllFields(config);
}

TEST(ModelConfigTest, ReadsTheOldNameOfTheRopeKind) {
  Json json = Version4();
  json["rope_scaling"]["type"] = "llama3";
  json["rope_scaling"].erase("rope_type");
  ASSERT_OK_AND_ASSIGN(const ModelConfig config, Parse(json));
  ExpectAllFields(config);
}

TEST(ModelConfigTest, ReadsAFileAndNamesItInErrors) {
  const testing::TempDir dir;
  ASSERT_OK(WriteFile(dir.File("config.json"), Version5().dump()));
  ASSERT_OK_AND_ASSIGN(const ModelConfig config, ModelConfig::FromFile(dir.File("config.json")));
  ExpectAllFields(config);
  EXPECT_THAT(ModelConfig::FromFile(dir.File("none.json")),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("none.json")));
  ASSERT_OK(WriteFile(dir.File("config.json"), "{"));
  EXPECT_THAT(ModelConfig::FromFile(dir.File("config.json")),
              StatusIs(kInvalid, HasSubstr("config.json: not valid JSON")));
}

TEST(ModelConfigTest, AssumesWhatTransformersAssumes) {
  const Json json = Json::parse(R"({
    "model_type": "llama", "vocab_size": 32000, "hidden_size": 64, "intermediate_size": 172,
    "num_hidden_layers": 2, "num_attention_heads": 4})");
  ASSERT_OK_AND_ASSIGN(const ModelConfig config, Parse(json));
  EXPECT_EQ(config.kv_head_count, 4);
  EXPECT_EQ(config.head_dim, 16);
  EXPECT_EQ(config.context_tokens, 2048);
  EXPECT_EQ(config.rms_norm_epsilon, 1e-6);
  EXPECT_EQ(config.rope.kind, RopeKind::kDefault);
  EXPECT_EQ(config.rope.theta, 10000.0);
  EXPECT_FALSE(config.tied_embeddings);
  EXPECT_FALSE(config.attention_bias);
  EXPECT_FALSE(config.mlp_bias);
  EXPECT_EQ(config.bos_token_id, 1);
  EXPECT_THAT(config.eos_token_ids, ElementsAre(2));
  EXPECT_EQ(config.pad_token_id, std::nullopt);
  EXPECT_EQ(config.dtype, "");
}

TEST(ModelConfigTest, TakesNullForAbsentButForTokenIds) {
  Json json = Version5();
  for (const char* field : {"num_key_value_heads", "head_dim", "rope_parameters", "dtype",
                            "bos_token_id", "eos_token_id", "pad_token_id"}) {
    json[field] = nullptr;
  }
  ASSERT_OK_AND_ASSIGN(const ModelConfig config, Parse(json));
  EXPECT_EQ(config.kv_head_count, 6);
  EXPECT_EQ(config.head_dim, 8);
  EXPECT_EQ(config.rope.theta, 10000.0);
  EXPECT_EQ(config.bos_token_id, std::nullopt);
  EXPECT_THAT(config.eos_token_ids, IsEmpty());
  EXPECT_EQ(config.pad_token_id, std::nullopt);
}

TEST(ModelConfigTest, ReadsTokenIdsAlone) {
  Json json = Version5();
  json["eos_token_id"] = 9;
  json["pad_token_id"] = -1;
  ASSERT_OK_AND_ASSIGN(const ModelConfig config, Parse(json));
  EXPECT_THAT(config.eos_token_ids, ElementsAre(9));
  EXPECT_EQ(config.pad_token_id, std::nullopt);
}

TEST(ModelConfigTest, PrefersTheOlderRopeFieldAndTheInnerTheta) {
  Json json = Version5();
  json["rope_theta"] = 7.0;
  json["rope_scaling"] = {{"rope_type", "default"}};
  ASSERT_OK_AND_ASSIGN(const ModelConfig older, Parse(json));
  EXPECT_EQ(older.rope.kind, RopeKind::kDefault);
  EXPECT_EQ(older.rope.theta, 7.0);
  json["rope_scaling"] = Json::object();
  ASSERT_OK_AND_ASSIGN(const ModelConfig inner, Parse(json));
  EXPECT_EQ(inner.rope.kind, RopeKind::kLlama3);
  EXPECT_EQ(inner.rope.theta, 500000.0);
}

TEST(ModelConfigTest, TakesTheContextForTheOriginalOneOfLlama3) {
  Json json = Version5();
  json["rope_parameters"].erase("original_max_position_embeddings");
  ASSERT_OK_AND_ASSIGN(const ModelConfig config, Parse(json));
  EXPECT_EQ(config.rope.original_context_tokens, 4096);
}

TEST(ModelConfigTest, TheOriginalContextBesideTheRopeParametersWins) {
  for (Json json : {Version4(), Version5()}) {
    json["original_max_position_embeddings"] = 1024;
    ASSERT_OK_AND_ASSIGN(const ModelConfig config, Parse(json));
    EXPECT_EQ(config.rope.original_context_tokens, 1024);
    json["original_max_position_embeddings"] = nullptr;
    ASSERT_OK_AND_ASSIGN(const ModelConfig without, Parse(json));
    EXPECT_EQ(without.rope.original_context_tokens, 8192);
  }
}

TEST(ModelConfigTest, IgnoresWhatDoesNotChangeTheMaths) {
  Json json = Version5();
  json["pretraining_tp"] = 2;
  json["use_cache"] = false;
  json["transformers_version"] = "5.23.0";
  json["quantization_config"] = {{"quant_method", "bitsandbytes"}};
  EXPECT_OK(ErrorOf(json));
}

TEST(ModelConfigTest, AcceptsOtherSpellingsOfTheSameMaths) {
  EXPECT_OK(ErrorWith("hidden_act", "swish"));
  EXPECT_OK(ErrorWith("bos_token_id", 128000));
  EXPECT_OK(ErrorWith("eos_token_id", {300, 128001}));
  Json json = Version4();
  json["rope_scaling"] = {{"type", "linear"}, {"factor", 1.0}};
  ASSERT_OK_AND_ASSIGN(const ModelConfig config, Parse(json));
  EXPECT_EQ(config.rope.kind, RopeKind::kDefault);
  json["rope_scaling"].erase("factor");
  EXPECT_THAT(ErrorOf(json), StatusIs(kInvalid, HasSubstr("factor")));
}

TEST(ModelConfigTest, RefusesOtherArchitecturesByName) {
  EXPECT_THAT(ErrorWith("model_type", "mistral"),
              StatusIs(kUnimplemented, AllOf(HasSubstr("dir/config.json"), HasSubstr("model_type"),
                                             HasSubstr("'mistral'"))));
  EXPECT_THAT(ErrorWith("architectures", {"LlamaForSequenceClassification"}),
              StatusIs(kUnimplemented, HasSubstr("'LlamaForSequenceClassification'")));
  EXPECT_THAT(ErrorWith("hidden_act", "gelu"), StatusIs(kUnimplemented, HasSubstr("'gelu'")));
}

TEST(ModelConfigTest, RefusesOtherRopeKindsByName) {
  for (const char* kind : {"linear", "dynamic", "yarn", "longrope", "su"}) {
    for (const char* field : {"rope_type", "type"}) {
      Json json = Version4();
      json["rope_scaling"] = {{field, kind}, {"factor", 2.0}};
      EXPECT_THAT(ErrorOf(json),
                  StatusIs(kUnimplemented, AllOf(HasSubstr(kind), HasSubstr(field))));
    }
    Json json = Version5();
    json["rope_parameters"]["rope_type"] = kind;
    EXPECT_THAT(
        ErrorOf(json),
        StatusIs(kUnimplemented, AllOf(HasSubstr("rope_parameters.rope_type"), HasSubstr(kind))));
  }
  EXPECT_THAT(ErrorWith("partial_rotary_factor", 0.5),
              StatusIs(kUnimplemented, HasSubstr("partial_rotary_factor")));
  Json json = Version5();
  json["rope_parameters"]["partial_rotary_factor"] = 0.5;
  EXPECT_THAT(ErrorOf(json), StatusIs(kUnimplemented, HasSubstr("partial_rotary_factor")));
}

TEST(ModelConfigTest, NamesAMissingField) {
  for (const char* field : {"model_type", "vocab_size", "hidden_size", "intermediate_size",
                            "num_hidden_layers", "num_attention_heads"}) {
    Json json = Version5();
    json.erase(field);
    EXPECT_THAT(ErrorOf(json),
                StatusIs(kInvalid, AllOf(HasSubstr("dir/config.json"),
                                         HasSubstr(std::string("'") + field + "'"))));
  }
  for (const char* field : {"factor", "low_freq_factor", "high_freq_factor"}) {
    Json json = Version5();
    json["rope_parameters"].erase(field);
    EXPECT_THAT(ErrorOf(json), StatusIs(kInvalid, HasSubstr(field)));
  }
}

TEST(ModelConfigTest, NamesAFieldOfTheWrongType) {
  EXPECT_THAT(
      ErrorWith("hidden_size", "48"),
      StatusIs(kInvalid, "dir/config.json: field 'hidden_size': expected an integer, got \"48\""));
  EXPECT_THAT(ErrorWith("hidden_size", 48.5), StatusIs(kInvalid, HasSubstr("'hidden_size'")));
  EXPECT_THAT(ErrorWith("tie_word_embeddings", 1), StatusIs(kInvalid, HasSubstr("true or false")));
  EXPECT_THAT(ErrorWith("eos_token_id", "x"), StatusIs(kInvalid, HasSubstr("'eos_token_id'")));
  EXPECT_THAT(ErrorWith("eos_token_id", {1, "x"}), StatusIs(kInvalid, HasSubstr("'eos_token_id'")));
  EXPECT_THAT(ErrorWith("rope_parameters", 3), StatusIs(kInvalid, HasSubstr("'rope_parameters'")));
  EXPECT_THAT(ErrorOf(Json::array()), StatusIs(kInvalid, HasSubstr("object")));
}

TEST(ModelConfigTest, RefusesSizesOutOfBounds) {
  const int64_t huge = int64_t{1} << 62;
  for (const char* field :
       {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
        "num_attention_heads", "num_key_value_heads", "head_dim", "max_position_embeddings"}) {
    for (const int64_t value : {int64_t{0}, int64_t{-1}, huge}) {
      EXPECT_THAT(ErrorWith(field, value),
                  StatusIs(kInvalid, AllOf(HasSubstr("dir/config.json"), HasSubstr(field),
                                           HasSubstr(std::to_string(value)))));
    }
  }
  EXPECT_THAT(ErrorWith("num_key_value_heads", 4),
              StatusIs(kInvalid, HasSubstr("divisor of num_attention_heads 6, got 4")));
  EXPECT_THAT(ErrorWith("head_dim", 9), StatusIs(kInvalid, HasSubstr("even number, got 9")));
  EXPECT_THAT(ErrorWith("rms_norm_eps", 0), StatusIs(kInvalid, HasSubstr("rms_norm_eps")));
  EXPECT_THAT(ErrorWith("pad_token_id", 1000), StatusIs(kInvalid, HasSubstr("pad_token_id")));
}

TEST(ModelConfigTest, RefusesAHeadSizeThatDoesNotDivide) {
  Json json = Version5();
  json["head_dim"] = nullptr;
  json["num_attention_heads"] = 5;
  EXPECT_THAT(ErrorOf(json), StatusIs(kInvalid, HasSubstr("divisor of hidden_size 48")));
  json["num_attention_heads"] = 0;
  EXPECT_THAT(ErrorOf(json), StatusIs(kInvalid, HasSubstr("num_attention_heads")));
}

TEST(ModelConfigTest, RefusesRopeFactorsThatMakeNoSense) {
  for (const char* field : {"rope_theta", "factor", "low_freq_factor", "high_freq_factor",
                            "original_max_position_embeddings"}) {
    Json json = Version5();
    json["rope_parameters"][field] = 0;
    EXPECT_THAT(ErrorOf(json), StatusIs(kInvalid, HasSubstr(field)));
  }
  Json json = Version5();
  json["rope_parameters"]["high_freq_factor"] = 1.0;
  EXPECT_THAT(ErrorOf(json), StatusIs(kInvalid, HasSubstr("more than low_freq_factor")));
}

TEST(ModelConfigTest, ArchitectureJsonHoldsWhatChangesResultsAlone) {
  ASSERT_OK_AND_ASSIGN(const ModelConfig config, Parse(Version5()));
  EXPECT_EQ(config.ArchitectureJson(),
            R"({"attention_bias":true,"ffn_size":80,"head_count":6,"head_dim":10,"hidden_size":48,)"
            R"("kv_head_count":2,"layer_count":3,"mlp_bias":true,"model_type":"llama",)"
            R"("rms_norm_epsilon":1e-05,"rope_scaling":{"factor":32.0,"high_frequency_factor":4.0,)"
            R"("kind":"llama3","low_frequency_factor":1.0,"original_context_tokens":8192},)"
            R"("rope_theta":500000.0,"tied_embeddings":true,"vocabulary_size":300})");
  Json json = Version4();
  json["torch_dtype"] = "float32";
  json["eos_token_id"] = 7;
  json["max_position_embeddings"] = 100;
  ASSERT_OK_AND_ASSIGN(const ModelConfig other, Parse(json));
  EXPECT_EQ(other.ArchitectureJson(), config.ArchitectureJson());
  json["rope_theta"] = 10000.0;
  ASSERT_OK_AND_ASSIGN(const ModelConfig changed, Parse(json));
  EXPECT_NE(changed.ArchitectureJson(), config.ArchitectureJson());
}

TEST(ModelConfigTest, CountsParameters) {
  ModelConfig config;
  config.vocabulary_size = 100;
  config.hidden_size = 8;
  config.layer_count = 2;
  config.head_count = 4;
  config.kv_head_count = 2;
  config.head_dim = 4;
  config.ffn_size = 20;
  const int64_t attention = 16 * 8 + 2 * (8 * 8) + 8 * 16;
  const int64_t mlp = 3 * 20 * 8;
  EXPECT_EQ(config.LinearParameterCount(), 2 * (attention + mlp));
  EXPECT_EQ(config.ParameterCount(), 2 * (attention + mlp) + 2 * 100 * 8 + 5 * 8);
  config.tied_embeddings = true;
  config.attention_bias = true;
  config.mlp_bias = true;
  const int64_t biases = 16 + 8 + 8 + 8 + 20 + 20 + 8;
  EXPECT_EQ(config.ParameterCount(), 2 * (attention + mlp + biases) + 100 * 8 + 5 * 8);
}

TEST(ModelConfigTest, KnowsPathsAndShapesOfTheLinears) {
  ModelConfig config;
  config.hidden_size = 48;
  config.head_count = 6;
  config.kv_head_count = 2;
  config.head_dim = 10;
  config.ffn_size = 80;
  EXPECT_EQ(ModulePath(11, Projection::kQ), "model.layers.11.self_attn.q_proj");
  EXPECT_EQ(ModulePath(0, Projection::kDown), "model.layers.0.mlp.down_proj");
  const auto shape = [&](Projection projection) {
    const LinearShape shape = ProjectionShape(config, projection);
    return std::make_pair(shape.out, shape.in);
  };
  EXPECT_EQ(shape(Projection::kQ), std::make_pair(int64_t{60}, int64_t{48}));
  EXPECT_EQ(shape(Projection::kK), std::make_pair(int64_t{20}, int64_t{48}));
  EXPECT_EQ(shape(Projection::kV), std::make_pair(int64_t{20}, int64_t{48}));
  EXPECT_EQ(shape(Projection::kO), std::make_pair(int64_t{48}, int64_t{60}));
  EXPECT_EQ(shape(Projection::kGate), std::make_pair(int64_t{80}, int64_t{48}));
  EXPECT_EQ(shape(Projection::kUp), std::make_pair(int64_t{80}, int64_t{48}));
  EXPECT_EQ(shape(Projection::kDown), std::make_pair(int64_t{48}, int64_t{80}));
}

TEST(ModelConfigTest, NamesTheWeightsOfAllLinears) {
  ModelConfig config;
  config.layer_count = 3;
  const std::map<std::string, LinearPlace> weights = LinearWeights(config);
  EXPECT_EQ(weights.size(), 21u);
  const LinearPlace place = weights.at("model.layers.2.mlp.gate_proj.weight");
  EXPECT_EQ(place.layer, 2);
  EXPECT_EQ(place.projection, Projection::kGate);
}

TEST(ModelConfigTest, ReadsEveryGoldenModel) {
  const char* root = std::getenv("PRICER_TEST_DATA");
  const std::string models = std::string(root == nullptr ? PRICER_TEST_DATA : root) + "/models/";
  for (const char* name :
       {"gqa", "tied", "mqa", "llama3-rope", "rope-v4", "odd", "sharded", "bf16"}) {
    EXPECT_OK(ModelConfig::FromFile(models + name + "/config.json")) << name;
  }
  ASSERT_OK_AND_ASSIGN(const ModelConfig version5,
                       ModelConfig::FromFile(models + "llama3-rope/config.json"));
  for (const char* file : {"rope-v4/config.json", "rope-v4/config.old-type.json"}) {
    ASSERT_OK_AND_ASSIGN(const ModelConfig version4, ModelConfig::FromFile(models + file));
    EXPECT_EQ(version4.ArchitectureJson(), version5.ArchitectureJson());
    EXPECT_EQ(version4.dtype, version5.dtype);
  }
}

}  // namespace
}  // namespace pricer
