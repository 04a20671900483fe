#include "model/tokenizer_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/testing/status_matchers.h"

namespace pricer {
namespace {

using ::pricer::testing::IsOkAndHolds;
using ::pricer::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Json = nlohmann::json;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kDataLoss = absl::StatusCode::kDataLoss;

absl::StatusOr<TokenizerConfig> Parse(const std::string& json) {
  return ParseTokenizerConfig({.directory = "dir", .tokenizer = "{}", .config = json});
}

std::vector<std::string> Contents(const std::string& tokens) {
  std::vector<std::string> contents;
  for (const Json& token : Json::parse(tokens)) contents.push_back(token["content"]);
  return contents;
}

TEST(TokenizerConfigTest, AnEmptyConfigurationAddsNothing) {
  ASSERT_OK_AND_ASSIGN(const TokenizerConfig config, Parse("{}"));
  EXPECT_EQ(config.added_tokens, "[]");
  EXPECT_EQ(config.special_tokens, "[]");
  EXPECT_FALSE(config.split_special_tokens);
  EXPECT_FALSE(config.llama_class);
}

TEST(TokenizerConfigTest, AddedTokensComeInTheOrderOfTheirIds) {
  ASSERT_OK_AND_ASSIGN(const TokenizerConfig config,
                       Parse(R"({"added_tokens_decoder": {"100": {"content": "c"},
                           "20": {"content": "b", "special": true}, "3": {"content": "a"}}})"));
  EXPECT_THAT(Contents(config.added_tokens), ElementsAre("a", "b", "c"));
  const Json tokens = Json::parse(config.added_tokens);
  EXPECT_EQ(tokens[0]["normalized"], true);
  EXPECT_EQ(tokens[1]["normalized"], false);
  EXPECT_EQ(tokens[1]["special"], true);
}

TEST(TokenizerConfigTest, SpecialTokensComeInTheLibrarysOrder) {
  ASSERT_OK_AND_ASSIGN(const TokenizerConfig config,
                       Parse(R"({"image_token": "<img>", "pad_token": "<p>", "unk_token": null,
                "eos_token": {"content": "</s>", "lstrip": true}, "bos_token": "<s>",
                "chat_template": "x", "extra_special_tokens": ["<e>"],
                "additional_special_tokens": ["never"]})"));
  EXPECT_THAT(Contents(config.special_tokens), ElementsAre("<s>", "</s>", "<p>", "<img>", "<e>"));
  const Json tokens = Json::parse(config.special_tokens);
  EXPECT_EQ(tokens[1]["lstrip"], true);
  EXPECT_EQ(tokens[1]["special"], true);
}

TEST(TokenizerConfigTest, FlagsThatAreNoTokensAreNotTakenForTokens) {
  ASSERT_OK_AND_ASSIGN(const TokenizerConfig config,
                       Parse(R"({"add_bos_token": true, "add_eos_token": false})"));
  EXPECT_EQ(config.special_tokens, "[]");
}

TEST(TokenizerConfigTest, ErrorsNameTheField) {
  const auto expect = [](const std::string& json, const std::string& field) {
    EXPECT_THAT(Parse(json),
                StatusIs(kInvalid, AllOf(HasSubstr("dir/tokenizer_config.json"), HasSubstr(field))))
        << json;
  };
  expect("{", "");
  expect("[]", "");
  expect(R"({"bos_token": 3})", "bos_token");
  expect(R"({"bos_token": {"lstrip": true}})", "content");
  expect(R"({"bos_token": {"content": "x", "lstrip": 1}})", "lstrip");
  expect(R"({"added_tokens_decoder": {"x": {"content": "a"}}})", "added_tokens_decoder");
  expect(R"({"added_tokens_decoder": [1]})", "added_tokens_decoder");
  expect(R"({"split_special_tokens": "yes"})", "split_special_tokens");
  expect(R"({"tokenizer_class": "LlamaTokenizer", "legacy": 1})", "legacy");
}

TEST(TokenizerConfigTest, ErrorsOfOldFilesNameThem) {
  TokenizerFiles files{.directory = "dir", .tokenizer = "{}", .special_tokens_map = "[]"};
  EXPECT_THAT(ParseTokenizerConfig(files),
              StatusIs(kInvalid, HasSubstr("dir/special_tokens_map.json")));
  files.special_tokens_map = "{}";
  for (const char* json : {"{", "[1]", R"({"a": "b"})"}) {
    files.added_tokens = json;
    EXPECT_THAT(ParseTokenizerConfig(files),
                StatusIs(kInvalid, HasSubstr("dir/added_tokens.json")));
  }
}

TEST(TokenizerConfigTest, LlamaTokenizerKeepsVocabularyAndPostProcessorAlone) {
  ASSERT_OK_AND_ASSIGN(
      const TokenizerConfig config,
      Parse(R"({"tokenizer_class": "LlamaTokenizer", "add_prefix_space": false})"));
  EXPECT_TRUE(config.llama_class);
  const std::string file = R"({"normalizer": {"type": "NFC"}, "post_processor": {"kept": 1},
      "added_tokens": [2], "model": {"type": "BPE", "vocab": {"a": 0}, "merges": [],
      "unk_token": "a"}})";
  ASSERT_OK_AND_ASSIGN(const std::string made, AsLlamaTokenizer(file, config, "t.json"));
  const Json json = Json::parse(made);
  EXPECT_TRUE(json["normalizer"].is_null());
  EXPECT_EQ(json["post_processor"]["kept"], 1);
  EXPECT_EQ(json["added_tokens"][0], 2);
  EXPECT_EQ(json["pre_tokenizer"]["type"], "Metaspace");
  EXPECT_EQ(json["pre_tokenizer"]["prepend_scheme"], "never");
  EXPECT_EQ(json["model"]["byte_fallback"], true);
  EXPECT_EQ(json["model"]["vocab"]["a"], 0);
  EXPECT_EQ(json["decoder"]["decoders"].size(), 3);
}

TEST(TokenizerConfigTest, AByteLevelFileStaysAsItIs) {
  const std::string file = R"({"pre_tokenizer": {"type": "ByteLevel"}})";
  EXPECT_THAT(AsLlamaTokenizer(file, {}, "t.json"), IsOkAndHolds(file));
}

TEST(TokenizerConfigTest, LlamaTokenizerNeedsABpeModel) {
  for (const char* file :
       {"{", "[]", "{}", R"({"model": []})", R"({"model": {"type": "Unigram"}})"}) {
    EXPECT_THAT(AsLlamaTokenizer(file, {}, "dir/t.json"),
                StatusIs(kDataLoss, HasSubstr("dir/t.json")))
        << file;
  }
}

}  // namespace
}  // namespace pricer
