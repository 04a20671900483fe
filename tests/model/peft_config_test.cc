#include "model/peft_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "tests/testing/status_matchers.h"

namespace pricer {
namespace {

using ::pricer::testing::StatusIs;
using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;
using Json = nlohmann::json;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;

std::string DataRoot() {
  const char* root = std::getenv("PRICER_TEST_DATA");
  return root == nullptr ? PRICER_TEST_DATA : root;
}

Json Minimal() {
  return {{"peft_type", "LORA"},
          {"task_type", "CAUSAL_LM"},
          {"r", 4},
          {"lora_alpha", 16},
          {"target_modules", {"q_proj", "v_proj"}}};
}

absl::StatusOr<PeftConfig> Parse(const Json& json) {
  return PeftConfig::FromJson(json.dump(), "dir/adapter_config.json");
}

absl::StatusOr<PeftConfig> ParseWith(const char* field, const Json& value) {
  Json json = Minimal();
  json[field] = value;
  return Parse(json);
}

TEST(PeftConfigTest, ReadsWhatChangesTheMaths) {
  Json json = Minimal();
  json["task_type"] = "SEQ_CLS";
  json["modules_to_save"] = {"classifier", "score"};
  json["lora_alpha"] = 12.5;
  json["lora_dropout"] = 0.05;
  json["use_rslora"] = true;
  json["exclude_modules"] = {"k_proj"};
  json["layers_to_transform"] = {1, 3};
  json["layers_pattern"] = {"layers", "blocks"};
  json["rank_pattern"] = {{"q_proj", 2}};
  json["alpha_pattern"] = {{"v_proj", 1.5}, {"o_proj", 3}};
  json["base_model_name_or_path"] = "some/base";
  ASSERT_OK_AND_ASSIGN(const PeftConfig config, Parse(json));
  EXPECT_EQ(config.task, PeftTask::kSeqCls);
  EXPECT_EQ(config.r, 4);
  EXPECT_EQ(config.alpha, 12.5);
  EXPECT_EQ(config.dropout, 0.05);
  EXPECT_TRUE(config.use_rslora);
  EXPECT_THAT(config.target_modules, ElementsAre("q_proj", "v_proj"));
  EXPECT_EQ(config.target_regex, std::nullopt);
  EXPECT_THAT(config.exclude_modules, ElementsAre("k_proj"));
  EXPECT_THAT(config.layers_to_transform, ElementsAre(1, 3));
  EXPECT_THAT(config.layers_pattern, ElementsAre("layers", "blocks"));
  EXPECT_THAT(config.rank_pattern, ElementsAre(Pair("q_proj", 2)));
  EXPECT_THAT(config.alpha_pattern, ElementsAre(Pair("o_proj", 3.0), Pair("v_proj", 1.5)));
  EXPECT_EQ(config.base_model_name, "some/base");
}

TEST(PeftConfigTest, ReadsSingleValuesForLists) {
  Json json = Minimal();
  json["target_modules"] = "q_proj";
  json["exclude_modules"] = ".*k_proj";
  ASSERT_OK_AND_ASSIGN(const PeftConfig regex, Parse(json));
  EXPECT_EQ(regex.target_regex, "q_proj");
  EXPECT_THAT(regex.target_modules, IsEmpty());
  EXPECT_EQ(regex.exclude_regex, ".*k_proj");
  json["target_modules"] = {"q_proj"};
  json["layers_to_transform"] = 2;
  json["layers_pattern"] = "layers";
  ASSERT_OK_AND_ASSIGN(const PeftConfig single, Parse(json));
  EXPECT_THAT(single.layers_to_transform, ElementsAre(2));
  EXPECT_THAT(single.layers_pattern, ElementsAre("layers"));
}

TEST(PeftConfigTest, ReadsAllLinearInAnyCase) {
  ASSERT_OK_AND_ASSIGN(const PeftConfig config, ParseWith("target_modules", "All-Linear"));
  EXPECT_THAT(config.target_modules, ElementsAre("all-linear"));
  EXPECT_EQ(config.target_regex, std::nullopt);
}

TEST(PeftConfigTest, AssumesWhatPeftAssumes) {
  ASSERT_OK_AND_ASSIGN(const PeftConfig config,
                       Parse({{"peft_type", "LORA"}, {"task_type", nullptr}}));
  EXPECT_EQ(config.task, PeftTask::kCausalLm);
  EXPECT_EQ(config.r, 8);
  EXPECT_EQ(config.alpha, 8);
  EXPECT_EQ(config.dropout, 0);
  EXPECT_FALSE(config.use_rslora);
  EXPECT_THAT(config.target_modules, ElementsAre("q_proj", "v_proj"));
}

TEST(PeftConfigTest, RefusesEveryOptionThatIsOnAndNotSupported) {
  const std::vector<std::pair<const char*, Json>> options = {
      {"use_dora", true},
      {"lora_bias", true},
      {"use_qalora", true},
      {"use_bdlora", {{"nblocks", 2}}},
      {"fan_in_fan_out", true},
      {"layer_replication", {{0, 4}, {2, 5}}},
      {"target_parameters", {"mlp.experts"}},
      {"alora_invocation_tokens", {1, 2}},
      {"arrow_config", {{"top_k", 3}}},
      {"eva_config", {{"rho", 2.0}}},
      {"corda_config", {{"corda_method", "ipm"}}},
      {"kasa_config", {{"beta", 0.1}}},
      {"velora_config", {{"scale", 1.0}}},
      {"monteclora_config", {{"num_samples", 2}}},
      {"lora_ga_config", {{"scale", "unit"}}},
      {"loftq_config", {{"loftq_bits", 4}}},
      {"megatron_config", {{"a", 1}}},
      {"trainable_token_indices", {5, 6}},
      {"ensure_weight_tying", true},
      {"some_option_of_the_future", 0.5},
      {"another_option_of_the_future", "on"}};
  for (const auto& [name, value] : options) {
    EXPECT_THAT(ParseWith(name, value),
                StatusIs(kUnimplemented, AllOf(HasSubstr("dir/adapter_config.json"),
                                               HasSubstr(std::string("'") + name + "'"))));
  }
}

TEST(PeftConfigTest, AcceptsOptionsThatAreOffKnownOrNot) {
  for (const Json& off : {Json(), Json(false), Json::object(), Json::array(), Json("")}) {
    EXPECT_OK(ParseWith("use_dora", off));
    EXPECT_OK(ParseWith("some_option_of_the_future", off));
  }
  EXPECT_OK(ParseWith("inference_mode", false));
  EXPECT_OK(ParseWith("revision", "main"));
  EXPECT_OK(ParseWith("peft_version", "0.7.1"));
  EXPECT_OK(ParseWith("auto_mapping", {{"base_model_class", "LlamaForCausalLM"}}));
}

TEST(PeftConfigTest, RefusesOtherKindsByName) {
  EXPECT_THAT(ParseWith("peft_type", "IA3"),
              StatusIs(kUnimplemented, AllOf(HasSubstr("peft_type"), HasSubstr("'IA3'"))));
  EXPECT_THAT(ParseWith("task_type", "TOKEN_CLS"),
              StatusIs(kUnimplemented, AllOf(HasSubstr("task_type"), HasSubstr("'TOKEN_CLS'"))));
  for (const char* bias : {"all", "lora_only"}) {
    EXPECT_THAT(ParseWith("bias", bias),
                StatusIs(kUnimplemented, AllOf(HasSubstr("'bias'"), HasSubstr(bias))));
  }
  for (const char* init : {"pissa", "pissa_niter_4", "olora", "corda", "eva", "loftq"}) {
    EXPECT_THAT(ParseWith("init_lora_weights", init),
                StatusIs(kUnimplemented, AllOf(HasSubstr("init_lora_weights"), HasSubstr(init))));
  }
  EXPECT_OK(ParseWith("init_lora_weights", "gaussian"));
  EXPECT_OK(ParseWith("init_lora_weights", false));
}

TEST(PeftConfigTest, RefusesModulesToSaveBeyondTheHead) {
  EXPECT_THAT(
      ParseWith("modules_to_save", {"lm_head"}),
      StatusIs(kUnimplemented, AllOf(HasSubstr("modules_to_save"), HasSubstr("'lm_head'"))));
  EXPECT_THAT(ParseWith("modules_to_save", {"score"}),
              StatusIs(kUnimplemented, HasSubstr("'score'")));
  EXPECT_OK(ParseWith("modules_to_save", Json::array()));
  Json json = Minimal();
  json["task_type"] = "SEQ_CLS";
  json["modules_to_save"] = {"score", "embed_tokens"};
  EXPECT_THAT(Parse(json), StatusIs(kUnimplemented, HasSubstr("'embed_tokens'")));
}

TEST(PeftConfigTest, NamesAFieldOfTheWrongTypeOrOutOfRange) {
  EXPECT_THAT(ParseWith("r", 0), StatusIs(kInvalid, AllOf(HasSubstr("adapter_config.json"),
                                                          HasSubstr("'r'"), HasSubstr("got 0"))));
  EXPECT_THAT(ParseWith("r", int64_t{1} << 60), StatusIs(kInvalid, HasSubstr("'r'")));
  EXPECT_THAT(ParseWith("r", "8"), StatusIs(kInvalid, HasSubstr("'r'")));
  EXPECT_THAT(ParseWith("lora_alpha", "x"), StatusIs(kInvalid, HasSubstr("'lora_alpha'")));
  EXPECT_THAT(ParseWith("lora_dropout", 1.5), StatusIs(kInvalid, HasSubstr("'lora_dropout'")));
  EXPECT_THAT(ParseWith("rank_pattern", {{"q", 0}}),
              StatusIs(kInvalid, HasSubstr("'rank_pattern'")));
  EXPECT_THAT(ParseWith("rank_pattern", {{"q", "x"}}),
              StatusIs(kInvalid, HasSubstr("'rank_pattern'")));
  EXPECT_THAT(ParseWith("target_modules", {1, 2}),
              StatusIs(kInvalid, HasSubstr("'target_modules'")));
  EXPECT_THAT(ParseWith("target_modules", Json::array()),
              StatusIs(kInvalid, HasSubstr("'target_modules'")));
  EXPECT_THAT(PeftConfig::FromJson("{", "f"), StatusIs(kInvalid, HasSubstr("f: not valid JSON")));
  EXPECT_THAT(Parse(Json::object()), StatusIs(kInvalid, HasSubstr("peft_type")));
}

TEST(PeftConfigTest, RefusesLayersWithARegularExpression) {
  Json json = Minimal();
  json["target_modules"] = ".*q_proj";
  json["layers_to_transform"] = {1};
  EXPECT_THAT(Parse(json), StatusIs(kInvalid, HasSubstr("layers_to_transform")));
}

TEST(PeftConfigTest, ValidatesConfigsMadeInCode) {
  PeftConfig config;
  EXPECT_THAT(config.Validate(), StatusIs(kInvalid, HasSubstr("target_modules")));
  config.target_modules = {"q_proj"};
  EXPECT_OK(config.Validate());
  config.alpha = std::nan("");
  EXPECT_THAT(config.Validate(), StatusIs(kInvalid, HasSubstr("lora_alpha")));
  config.alpha = 1;
  config.dropout = std::nan("");
  EXPECT_THAT(config.Validate(), StatusIs(kInvalid, HasSubstr("lora_dropout")));
}

TEST(PeftConfigTest, WritesEveryFieldOfPeftInItsForm) {
  PeftConfig config;
  config.target_modules = {"q_proj", "caf\u00e9"};
  config.alpha = 16;
  config.alpha_pattern = {{"q_proj", 2.5}, {"v_proj", 4}};
  config.base_model_name = "some/base";
  const std::string text = config.ToJson();
  EXPECT_THAT(text,
              AllOf(HasSubstr("\n  \"lora_alpha\": 16,"), HasSubstr("\n  \"lora_dropout\": 0.0,"),
                    HasSubstr("\"caf\\u00e9\""), HasSubstr("\"q_proj\": 2.5"),
                    HasSubstr("\"v_proj\": 4\n"), HasSubstr("\n  \"rank_pattern\": {},")));
  const Json json = Json::parse(text);
  ASSERT_OK_AND_ASSIGN(const std::string reference,
                       ReadFile(DataRoot() + "/adapters/seqcls-qv/adapter_config.json"));
  Json expected = Json::parse(reference);
  for (const char* own :
       {"target_modules", "alpha_pattern", "lora_alpha", "r", "base_model_name_or_path"}) {
    EXPECT_TRUE(json.contains(own)) << own;
    expected[own] = json[own];
  }
  EXPECT_EQ(json, expected);
}

TEST(PeftConfigTest, WritesWhatItReads) {
  for (const auto& entry : std::filesystem::directory_iterator(DataRoot() + "/adapters")) {
    const std::string path = entry.path().string() + "/adapter_config.json";
    ASSERT_OK_AND_ASSIGN(const std::string text, ReadFile(path));
    ASSERT_OK_AND_ASSIGN(const PeftConfig config, PeftConfig::FromJson(text, path));
    ASSERT_OK_AND_ASSIGN(const PeftConfig again, PeftConfig::FromJson(config.ToJson(), "again"));
    EXPECT_EQ(again.ToJson(), config.ToJson());
    const Json expected = Json::parse(text);
    const Json written = Json::parse(config.ToJson());
    for (const auto& [key, value] : written.items()) {
      if (!expected.contains(key)) continue;
      EXPECT_EQ(value, expected[key]) << path << " " << key;
    }
  }
}

TEST(PeftConfigTest, RefusesEveryGoldenConfigThatIsNotSupported) {
  for (const char* name :
       {"dora", "modules-to-save", "bias-all", "lora-bias", "trainable-tokens", "ia3"}) {
    const std::string folder = DataRoot() + "/adapters-refused/" + name;
    ASSERT_OK_AND_ASSIGN(const std::string text, ReadFile(folder + "/adapter_config.json"));
    ASSERT_OK_AND_ASSIGN(const std::string refused, ReadFile(folder + "/refused.json"));
    std::vector<::testing::Matcher<std::string>> words;
    const Json golden = Json::parse(refused);
    for (const Json& word : golden["reason_names"]) {
      words.push_back(HasSubstr(word.get<std::string>()));
    }
    EXPECT_THAT(PeftConfig::FromJson(text, name),
                StatusIs(kUnimplemented, ::testing::AnyOfArray(words)));
  }
}

}  // namespace
}  // namespace pricer
