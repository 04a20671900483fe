#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "model/peft_config.h"
#include "tests/testing/status_matchers.h"

namespace pricer {
namespace {

using ::pricer::testing::StatusIs;
using ::testing::AllOf;
using ::testing::DoubleNear;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Json = nlohmann::json;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;

ModelConfig Model(int64_t layers) {
  ModelConfig config;
  config.vocabulary_size = 32;
  config.hidden_size = 16;
  config.layer_count = layers;
  config.head_count = 2;
  config.kv_head_count = 1;
  config.head_dim = 8;
  config.ffn_size = 24;
  return config;
}

PeftConfig Names(std::vector<std::string> names) {
  PeftConfig config;
  config.target_modules = std::move(names);
  return config;
}

PeftConfig Regex(std::string pattern) {
  PeftConfig config;
  config.target_regex = std::move(pattern);
  return config;
}

// Short names of the modules that carry LoRA: "0.q", "1.down".
std::vector<std::string> Matched(const PeftConfig& config, int64_t layers = 2) {
  const char* const kNames[] = {"q", "k", "v", "o", "gate", "up", "down"};
  std::vector<std::string> matched;
  const auto targets = config.Targets(Model(layers));
  EXPECT_OK(targets);
  if (!targets.ok()) return matched;
  for (int64_t layer = 0; layer < layers; ++layer) {
    for (int p = 0; p < kProjectionCount; ++p) {
      if ((*targets)[layer][p].rank > 0) matched.push_back(absl::StrCat(layer, ".", kNames[p]));
    }
  }
  return matched;
}

PeftConfig::Target TargetOf(const PeftConfig& config, int64_t layer, Projection projection) {
  const auto targets = config.Targets(Model(2));
  EXPECT_OK(targets);
  return targets.ok() ? (*targets)[layer][static_cast<int>(projection)] : PeftConfig::Target();
}

TEST(PeftTargetsTest, MatchesNamesAsSuffixAfterADot) {
  EXPECT_THAT(Matched(Names({"q_proj", "down_proj"})),
              ElementsAre("0.q", "0.down", "1.q", "1.down"));
  EXPECT_THAT(Matched(Names({"self_attn.v_proj"})), ElementsAre("0.v", "1.v"));
  EXPECT_THAT(Matched(Names({"1.mlp.up_proj"})), ElementsAre("1.up"));
}

TEST(PeftTargetsTest, MatchesWholePaths) {
  EXPECT_THAT(Matched(Names({"model.layers.1.mlp.gate_proj"})), ElementsAre("1.gate"));
  EXPECT_THAT(Matched(Names({"model.layers.1.mlp.gate_proj"}), 12), ElementsAre("1.gate"));
}

TEST(PeftTargetsTest, DoesNotMatchPartsOfNames) {
  EXPECT_THAT(Names({"proj"}).Targets(Model(2)), StatusIs(kInvalid, HasSubstr("'proj'")));
  EXPECT_THAT(Names({"attn.q_proj"}).Targets(Model(2)), StatusIs(kInvalid));
  EXPECT_THAT(Names({"Q_proj"}).Targets(Model(2)), StatusIs(kInvalid));
}

TEST(PeftTargetsTest, AcceptsNamesThatMatchNothingBesideOthersThatDo) {
  EXPECT_THAT(Matched(Names({"q_proj", "c_attn"})), ElementsAre("0.q", "1.q"));
}

TEST(PeftTargetsTest, AllLinearIsEveryLinearOfTheDecoder) {
  EXPECT_EQ(Matched(Names({"all-linear"}), 1),
            (std::vector<std::string>{"0.q", "0.k", "0.v", "0.o", "0.gate", "0.up", "0.down"}));
}

TEST(PeftTargetsTest, MatchesARegularExpressionOnTheWholePath) {
  EXPECT_THAT(Matched(Regex(R"(model\.layers\.\d+\.self_attn\.(q|v)_proj)")),
              ElementsAre("0.q", "0.v", "1.q", "1.v"));
  EXPECT_THAT(Matched(Regex(R"(.*\.1\..*_proj)")).size(), 7);
  EXPECT_THAT(
      Matched(
          Regex(
              R"((?:.*?(?:self_attn).*?(?:q_proj|k_proj).*?)|(?:\bmodel\.layers\.[\d]{1,}\.mlp\.up_proj))"),
          1),
      ElementsAre("0.q", "0.k", "0.up"));
  EXPECT_THAT(Matched(Regex(R"(^(?!.*layers\.0).*q_proj$)")), ElementsAre("1.q"));
  EXPECT_THAT(Regex("q_proj").Targets(Model(2)),
              StatusIs(kInvalid, HasSubstr("matches no linear")));
}

TEST(PeftTargetsTest, ExclusionWins) {
  PeftConfig config = Names({"q_proj", "v_proj"});
  config.exclude_modules = {"layers.0.self_attn.q_proj", "model.layers.1.self_attn.v_proj"};
  EXPECT_THAT(Matched(config), ElementsAre("0.v", "1.q"));
  config.exclude_modules = {"all-linear", "q_proj"};
  EXPECT_THAT(Matched(config), ElementsAre("0.v", "1.v"));
  config.exclude_regex = R"(.*\.0\..*)";
  EXPECT_THAT(Matched(config), ElementsAre("1.q", "1.v"));
  PeftConfig all = Names({"all-linear"});
  all.exclude_modules = {"k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"};
  EXPECT_THAT(Matched(all), ElementsAre("0.q", "1.q"));
  all.exclude_modules.push_back("q_proj");
  EXPECT_THAT(all.Targets(Model(2)), StatusIs(kInvalid, HasSubstr("matches no linear")));
}

TEST(PeftTargetsTest, LayersToTransformChoosesAmongSuffixMatches) {
  PeftConfig config = Names({"q_proj"});
  config.layers_to_transform = {1, 11, 99};
  EXPECT_THAT(Matched(config, 12), ElementsAre("1.q", "11.q"));
  config.target_modules = {"q_proj", "model.layers.0.self_attn.v_proj"};
  EXPECT_THAT(Matched(config), ElementsAre("0.v", "1.q"));
  config.target_modules = {"q_proj"};
  config.layers_to_transform = {7};
  EXPECT_THAT(config.Targets(Model(2)), StatusIs(kInvalid, HasSubstr("matches no linear")));
}

TEST(PeftTargetsTest, LayersPatternSaysWhatStandsBeforeTheNumber) {
  PeftConfig config = Names({"q_proj"});
  config.layers_to_transform = {1};
  for (const char* pattern : {"layers", "model.layers", "lay.*", "h|layers"}) {
    config.layers_pattern = {"blocks", pattern};
    EXPECT_THAT(Matched(config), ElementsAre("1.q")) << pattern;
  }
  for (const char* pattern : {"blocks", "ayers", "layer"}) {
    config.layers_pattern = {pattern};
    EXPECT_THAT(config.Targets(Model(2)), StatusIs(kInvalid)) << pattern;
  }
}

TEST(PeftTargetsTest, ScalesByRankOrItsRoot) {
  PeftConfig config = Names({"q_proj"});
  config.r = 6;
  config.alpha = 7;
  EXPECT_EQ(TargetOf(config, 0, Projection::kQ).rank, 6);
  EXPECT_EQ(TargetOf(config, 0, Projection::kQ).scale, 7.0 / 6.0);
  EXPECT_EQ(TargetOf(config, 0, Projection::kK).rank, 0);
  config.use_rslora = true;
  EXPECT_EQ(TargetOf(config, 1, Projection::kQ).scale, 7.0 / std::sqrt(6.0));
}

TEST(PeftTargetsTest, PatternsReplaceRankAndAlphaForOneModule) {
  PeftConfig config = Names({"all-linear"});
  config.r = 4;
  config.alpha = 8;
  config.rank_pattern = {{"q_proj", 2}, {R"(model.layers.1.mlp.(gate|up)_proj)", 6}};
  config.alpha_pattern = {{"layers.0.self_attn.q_proj", 5}, {R"(^model\.layers\.1\..*o_proj)", 20}};
  EXPECT_EQ(TargetOf(config, 0, Projection::kQ).rank, 2);
  EXPECT_EQ(TargetOf(config, 0, Projection::kQ).scale, 2.5);
  EXPECT_EQ(TargetOf(config, 1, Projection::kQ).scale, 4.0);
  EXPECT_EQ(TargetOf(config, 1, Projection::kUp).rank, 6);
  EXPECT_EQ(TargetOf(config, 0, Projection::kUp).rank, 4);
  EXPECT_EQ(TargetOf(config, 1, Projection::kO).scale, 5.0);
  EXPECT_EQ(TargetOf(config, 0, Projection::kO).scale, 2.0);
}

TEST(PeftTargetsTest, PatternsMatchTheEndOfAPathAfterADot) {
  PeftConfig config = Names({"q_proj"});
  config.r = 4;
  config.rank_pattern = {{"proj", 2}, {"q_pro", 3}, {"self_attn", 5}};
  EXPECT_EQ(TargetOf(config, 0, Projection::kQ).rank, 4);
  config.rank_pattern = {{"attn.q_proj", 2}, {".*q_proj", 3}};
  EXPECT_EQ(TargetOf(config, 0, Projection::kQ).rank, 3);
}

TEST(PeftTargetsTest, RefusesTwoPatternsForOneModule) {
  PeftConfig config = Names({"q_proj"});
  config.rank_pattern = {{"q_proj", 2}, {"layers.0.self_attn.q_proj", 6}};
  EXPECT_THAT(config.Targets(Model(2)),
              StatusIs(kInvalid, AllOf(HasSubstr("'rank_pattern'"), HasSubstr("'q_proj'"),
                                       HasSubstr("'layers.0.self_attn.q_proj'"),
                                       HasSubstr("'model.layers.0.self_attn.q_proj'"))));
  config.rank_pattern.clear();
  config.alpha_pattern = {{"q_proj", 2}, {".*", 6}};
  EXPECT_THAT(config.Targets(Model(2)), StatusIs(kInvalid, HasSubstr("'alpha_pattern'")));
  config.alpha_pattern = {{"k_proj", 2}, {"self_attn.k_proj", 6}};
  EXPECT_OK(config.Targets(Model(2)));
}

TEST(PeftTargetsTest, RefusesModulesThatAreNoLinearsByName) {
  for (const char* name : {"embed_tokens", "lm_head", "norm", "self_attn", "input_layernorm",
                           "act_fn", "model", "rotary_emb"}) {
    PeftConfig config = Names({"q_proj", name});
    config.task = PeftTask::kCausalLm;
    EXPECT_THAT(config.Targets(Model(2)),
                StatusIs(kUnimplemented, AllOf(HasSubstr("target_modules"), HasSubstr(name))));
  }
  EXPECT_THAT(Regex(".*").Targets(Model(2)), StatusIs(kUnimplemented, HasSubstr("'model'")));
  EXPECT_THAT(Regex(R"(.*embed.*)").Targets(Model(2)),
              StatusIs(kUnimplemented, HasSubstr("embed_tokens")));
  PeftConfig excluded = Names({"q_proj", "lm_head"});
  excluded.task = PeftTask::kCausalLm;
  excluded.exclude_modules = {"lm_head"};
  EXPECT_THAT(Matched(excluded), ElementsAre("0.q", "1.q"));
}

TEST(PeftTargetsTest, RefusesRegularExpressionsThatItDoesNotUnderstand) {
  for (const char* pattern : {"(", "[", "*", "(?P<name>q_proj)", "(?i)Q_PROJ", "(?<=a)b", "a{2",
                              R"(q_proj\Z)", R"(\Aq_proj)", R"((q)\1)", "[[:alpha:]]*", "[]a]"}) {
    EXPECT_THAT(
        Regex(pattern).Targets(Model(2)),
        StatusIs(kInvalid, AllOf(HasSubstr("'target_modules'"), HasSubstr("regular expression"))))
        << pattern;
  }
  PeftConfig config = Names({"q_proj"});
  config.rank_pattern = {{"(", 2}};
  EXPECT_THAT(config.Targets(Model(2)), StatusIs(kInvalid, HasSubstr("'rank_pattern'")));
  config.rank_pattern.clear();
  config.exclude_regex = "(";
  EXPECT_THAT(config.Targets(Model(2)), StatusIs(kInvalid, HasSubstr("'exclude_modules'")));
  config.exclude_regex.reset();
  config.layers_pattern = {"("};
  EXPECT_THAT(config.Targets(Model(2)), StatusIs(kInvalid, HasSubstr("'layers_pattern'")));
}

TEST(PeftTargetsTest, SurvivesHostileRegularExpressions) {
  EXPECT_THAT(Regex("(.*)*(.*)*(.*)*(.*)*(.*)*x").Targets(Model(2)), StatusIs(kInvalid));
  EXPECT_THAT(Regex("((((a|.)*)*)*)*((b|.)+)+$x").Targets(Model(2)), StatusIs(kInvalid));
  EXPECT_THAT(Regex("((a?){1000}){1000}").Targets(Model(2)),
              StatusIs(kInvalid, HasSubstr("repetitions")));
  EXPECT_THAT(Regex("a{99999999999999999999}").Targets(Model(2)), StatusIs(kInvalid));
  EXPECT_THAT(Regex(std::string(2000, 'a')).Targets(Model(2)),
              StatusIs(kInvalid, HasSubstr("1024")));
  EXPECT_THAT(Regex(std::string(500, '(') + std::string(500, ')')).Targets(Model(2)),
              StatusIs(kInvalid));
  std::string optional;
  for (int i = 0; i < 340; ++i) optional += "(a?)*";
  EXPECT_THAT(Regex(optional.substr(0, 1020)).Targets(Model(2)), StatusIs(kInvalid));
}

TEST(PeftTargetsTest, GivesRanksAndScalesOfEveryGoldenAdapter) {
  const char* variable = std::getenv("PRICER_TEST_DATA");
  const std::string root = variable == nullptr ? PRICER_TEST_DATA : variable;
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(root + "/adapters")) {
    const std::string folder = entry.path().string();
    ASSERT_OK_AND_ASSIGN(const std::string text, ReadFile(folder + "/adapter_config.json"));
    ASSERT_OK_AND_ASSIGN(const std::string golden_text, ReadFile(folder + "/golden.json"));
    ASSERT_OK_AND_ASSIGN(const PeftConfig config, PeftConfig::FromJson(text, folder));
    const Json golden = Json::parse(golden_text);
    const std::string base = root + "/" + golden["base"].get<std::string>();
    ASSERT_OK_AND_ASSIGN(const ModelConfig model, ModelConfig::FromFile(base + "/config.json"));
    ASSERT_OK_AND_ASSIGN(const auto targets, config.Targets(model));
    size_t found = 0;
    for (int64_t layer = 0; layer < model.layer_count; ++layer) {
      for (int p = 0; p < kProjectionCount; ++p) {
        const std::string path = ModulePath(layer, static_cast<Projection>(p));
        const bool expected = golden["targets"].contains(path);
        ASSERT_EQ(targets[layer][p].rank > 0, expected) << folder << " " << path;
        if (!expected) continue;
        ++found;
        EXPECT_EQ(targets[layer][p].rank, golden["targets"][path]["rank"]) << folder << " " << path;
        EXPECT_THAT(targets[layer][p].scale, DoubleNear(golden["targets"][path]["scale"], 1e-12));
      }
    }
    EXPECT_EQ(found, golden["targets"].size()) << folder;
    ++count;
  }
  EXPECT_GE(count, 16);
}

TEST(PeftTargetsTest, RefusesEveryGoldenConfigWhoseTargetsAreNotSupported) {
  const char* variable = std::getenv("PRICER_TEST_DATA");
  const std::string root = variable == nullptr ? PRICER_TEST_DATA : variable;
  for (const char* name : {"embedding", "lm-head", "two-patterns"}) {
    const std::string folder = root + "/adapters-refused/" + name;
    ASSERT_OK_AND_ASSIGN(const std::string text, ReadFile(folder + "/adapter_config.json"));
    ASSERT_OK_AND_ASSIGN(const std::string refused, ReadFile(folder + "/refused.json"));
    ASSERT_OK_AND_ASSIGN(const PeftConfig config, PeftConfig::FromJson(text, folder));
    const std::string word = Json::parse(refused)["reason_names"][0];
    const absl::Status status = config.Targets(Model(2)).status();
    EXPECT_FALSE(status.ok());
    EXPECT_THAT(std::string(status.message()), HasSubstr(word));
  }
}

}  // namespace
}  // namespace pricer
