#include "model/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/file.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/test_data.h"
#include "tests/testing/tokenizer_lines.h"

namespace pricer {
namespace {

using ::pricer::testing::DataPath;
using ::pricer::testing::GoldenIds;
using ::pricer::testing::IsOkAndHolds;
using ::pricer::testing::StatusIs;
using ::pricer::testing::TempDir;
using ::pricer::testing::TokenizerLines;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;
using Json = nlohmann::json;

constexpr auto kDataLoss = absl::StatusCode::kDataLoss;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

std::unique_ptr<Tokenizer> Golden(const std::string& name) {
  auto tokenizer = Tokenizer::FromDirectory(DataPath("tokenizers/" + name));
  EXPECT_OK(tokenizer);
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

class GoldenTokenizerTest : public ::testing::TestWithParam<const char*> {};

TEST_P(GoldenTokenizerTest, GivesAutoTokenizersIdsOnEveryLine) {
  const auto tokenizer = Golden(GetParam());
  ASSERT_NE(tokenizer, nullptr);
  const std::vector<std::string> lines = TokenizerLines();
  const auto expected = GoldenIds(GetParam());
  ASSERT_EQ(lines.size(), 2000);
  // Some have the ids of the first lines alone.
  ASSERT_GE(expected.size(), 200);
  ASSERT_LE(expected.size(), lines.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_OK_AND_ASSIGN(const auto ids, tokenizer->Encode(lines[i], true));
    EXPECT_EQ(ids, expected[i]) << "line " << i;
    ASSERT_OK_AND_ASSIGN(const auto encoding, tokenizer->EncodeWithOffsets(lines[i], true));
    EXPECT_EQ(encoding.ids, expected[i]) << "line " << i;
  }
}

TEST_P(GoldenTokenizerTest, OffsetsCoverTheTextInOrderAndWithoutGaps) {
  const auto tokenizer = Golden(GetParam());
  ASSERT_NE(tokenizer, nullptr);
  for (const std::string& line : TokenizerLines()) {
    ASSERT_OK_AND_ASSIGN(const auto encoding, tokenizer->EncodeWithOffsets(line, true));
    ASSERT_EQ(encoding.byte_offsets.size(), encoding.ids.size());
    ASSERT_EQ(encoding.pieces.size(), encoding.ids.size());
    uint32_t end = 0;
    uint32_t piece = 0;
    const size_t last = encoding.ids.size() - encoding.trailing_special;
    for (size_t i = 0; i < encoding.ids.size(); ++i) {
      const auto [token_begin, token_end] = encoding.byte_offsets[i];
      if (i < encoding.leading_special || i >= last) {
        EXPECT_EQ(encoding.pieces[i], Tokenizer::kNoPiece);
        EXPECT_EQ(token_end, 0);
        continue;
      }
      ASSERT_LE(token_begin, end) << line;
      ASSERT_GE(token_end, end) << line;
      ASSERT_GE(encoding.pieces[i], piece) << line;
      end = token_end;
      piece = encoding.pieces[i];
    }
    ASSERT_EQ(end, line.size()) << line;
  }
}

INSTANTIATE_TEST_SUITE_P(All, GoldenTokenizerTest,
                         ::testing::Values("smollm", "llama3", "llama2", "llama2-flags"),
                         [](const auto& info) {
                           std::string name = info.param;
                           name.erase(std::remove(name.begin(), name.end(), '-'), name.end());
                           return name;
                         });

TEST(TokenizerTest, ByteLevelTextComesBackFromItsIds) {
  const auto tokenizer = Golden("smollm");
  ASSERT_NE(tokenizer, nullptr);
  for (const std::string& line : TokenizerLines()) {
    ASSERT_OK_AND_ASSIGN(const auto ids, tokenizer->Encode(line, false));
    EXPECT_THAT(tokenizer->Decode(ids, false), IsOkAndHolds(line));
  }
}

TEST(TokenizerTest, SpecialTokensAreAddedAndLeftOutOnRequest) {
  const auto tokenizer = Golden("llama3");
  ASSERT_NE(tokenizer, nullptr);
  ASSERT_OK_AND_ASSIGN(const int32_t bos, tokenizer->TokenId("<|begin_of_text|>"));
  EXPECT_THAT(tokenizer->Encode("", true), IsOkAndHolds(ElementsAre(bos)));
  EXPECT_THAT(tokenizer->Encode("", false), IsOkAndHolds(ElementsAre()));
  ASSERT_OK_AND_ASSIGN(const auto encoding, tokenizer->EncodeWithOffsets("149", true));
  EXPECT_THAT(encoding.byte_offsets, ElementsAre(Pair(0, 0), Pair(0, 3)));
  EXPECT_EQ(encoding.leading_special, 1);
  EXPECT_EQ(encoding.trailing_special, 0);
  EXPECT_THAT(tokenizer->Decode(encoding.ids, true), IsOkAndHolds("149"));
  EXPECT_THAT(tokenizer->Decode(encoding.ids, false), IsOkAndHolds("<|begin_of_text|>149"));
}

TEST(TokenizerTest, SpecialTokensInATextAreThoseTokensAndPartOfTheText) {
  const auto tokenizer = Golden("smollm");
  ASSERT_NE(tokenizer, nullptr);
  ASSERT_OK_AND_ASSIGN(const auto encoding, tokenizer->EncodeWithOffsets("<|im_end|>", true));
  EXPECT_THAT(encoding.ids, ElementsAre(2));
  EXPECT_THAT(encoding.byte_offsets, ElementsAre(Pair(0, 10)));
  EXPECT_EQ(encoding.leading_special, 0);
}

TEST(TokenizerTest, TokensOfOneCharacterAllHaveItsRange) {
  const auto tokenizer = Golden("llama2");
  ASSERT_NE(tokenizer, nullptr);
  // A space in front, then a character that the vocabulary spells in four bytes.
  ASSERT_OK_AND_ASSIGN(const auto encoding, tokenizer->EncodeWithOffsets("a\U0001F600", false));
  const size_t count = encoding.ids.size();
  ASSERT_GE(count, 5);
  for (size_t i = count - 4; i < count; ++i) {
    EXPECT_THAT(encoding.byte_offsets[i], Pair(1, 5)) << i;
  }
}

TEST(TokenizerTest, OffsetsAreNotTrimmedOfSpaces) {
  const auto tokenizer = Golden("smollm");
  ASSERT_NE(tokenizer, nullptr);
  ASSERT_OK_AND_ASSIGN(const auto encoding, tokenizer->EncodeWithOffsets("1 pack", false));
  EXPECT_THAT(encoding.byte_offsets, ElementsAre(Pair(0, 1), Pair(1, 6)));
}

TEST(TokenizerTest, TextThatIsNoUtf8IsRefusedWithThePlace) {
  const auto tokenizer = Golden("smollm");
  ASSERT_NE(tokenizer, nullptr);
  for (const std::string text : {"ab\xff", "ab\xc3", "ab\xed\xa0\x80"}) {
    EXPECT_THAT(tokenizer->Encode(text, true), StatusIs(kInvalid, HasSubstr("at byte 2")));
    EXPECT_THAT(tokenizer->EncodeWithOffsets(text, true), StatusIs(kInvalid));
  }
}

TEST(TokenizerTest, DecodesBytesThatAreNoUtf8AndIdsThatNoTokenHas) {
  const auto tokenizer = Golden("smollm");
  ASSERT_NE(tokenizer, nullptr);
  ASSERT_OK_AND_ASSIGN(auto ids, tokenizer->Encode("\u00e9\u6f22", false));
  ids.pop_back();
  ASSERT_OK_AND_ASSIGN(const std::string text, tokenizer->Decode(ids, false));
  EXPECT_THAT(text, HasSubstr("\ufffd"));
  EXPECT_THAT(tokenizer->Decode({100000}, false), IsOkAndHolds(""));
  EXPECT_THAT(tokenizer->Decode({}, false), IsOkAndHolds(""));
  EXPECT_THAT(tokenizer->Decode({-1}, false), StatusIs(kInvalid, HasSubstr("got -1")));
}

TEST(TokenizerTest, CountsAddedTokensAndFindsThemBySpelling) {
  const auto tokenizer = Golden("llama3");
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_EQ(tokenizer->vocabulary_size(), 628);
  EXPECT_THAT(tokenizer->TokenId("<|eot_id|>"), IsOkAndHolds(627));
  EXPECT_THAT(tokenizer->TokenId("no such token"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("'no such token'")));
  EXPECT_THAT(tokenizer->TokenId("\xff"), StatusIs(absl::StatusCode::kNotFound));
}

TEST(TokenizerTest, ThreadsMayShareOne) {
  const auto tokenizer = Golden("smollm");
  ASSERT_NE(tokenizer, nullptr);
  const std::vector<std::string> lines = TokenizerLines();
  const auto expected = GoldenIds("smollm");
  std::atomic<int> wrong = 0;
  const auto work = [&](size_t first) {
    for (size_t i = first; i < 400; i += 4) {
      const auto ids = tokenizer->Encode(lines[i], true);
      if (!ids.ok() || *ids != expected[i]) ++wrong;
    }
  };
  std::vector<std::thread> threads;
  for (size_t i = 0; i < 4; ++i) threads.emplace_back(work, i);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

TEST(TokenizerTest, FilesThatAreNoTokenizersAreRefusedWithTheirName) {
  TempDir directory;
  const std::string path = directory.File("tokenizer.json");
  EXPECT_THAT(Tokenizer::FromFile(path), StatusIs(absl::StatusCode::kNotFound, HasSubstr(path)));
  EXPECT_THAT(Tokenizer::FromDirectory(directory.path()),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr(path)));
  ASSERT_OK_AND_ASSIGN(const std::string good,
                       ReadFile(DataPath("tokenizers/smollm/tokenizer.json")));
  for (const std::string& bytes :
       {std::string(), std::string("{}"), std::string("[1]"), std::string("\xff"),
        good.substr(0, good.size() / 2), std::string(100000, '['),
        std::string("{\"model\":{\"type\":\"Other\"}}")}) {
    ASSERT_OK(WriteFile(path, bytes));
    EXPECT_THAT(Tokenizer::FromFile(path), StatusIs(kDataLoss, HasSubstr(path)))
        << bytes.substr(0, 40);
  }
}

// A golden directory with changes, and what AutoTokenizer (transformers 5.23) makes of a text.
struct Variant {
  const char* name;
  const char* base;
  Json tokenizer_patch;  // RFC 7396
  Json config_patch;
  const char* text;
  std::vector<int32_t> ids;
  Json special_tokens_map = nullptr;  // no file where null
  Json added_tokens = nullptr;
};

std::vector<Variant> Variants() {
  const Json prepending = Json::parse(R"({"normalizer": {"type": "Sequence", "normalizers": [
      {"type": "Prepend", "prepend": "▁"},
      {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}, "pre_tokenizer": null})");
  const Json cutting = Json::parse(R"({
      "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
      "padding": {"strategy": {"Fixed": 32}, "direction": "Right", "pad_to_multiple_of": null,
                  "pad_id": 0, "pad_type_id": 0, "pad_token": "!"}})");
  const Json decoder = Json::parse(R"({"added_tokens_decoder": {
      "600": {"content": "zzz", "lstrip": false, "normalized": true, "rstrip": false,
              "single_word": false, "special": false},
      "0": {"content": "<|endoftext|>", "lstrip": true, "normalized": false, "rstrip": true,
            "single_word": false, "special": true}}})");
  const Json listed = Json::parse(R"({"additional_special_tokens": ["<s>", {"__type": "AddedToken",
      "content": "123", "lstrip": true, "normalized": false, "rstrip": false,
      "single_word": false}]})");
  return {
      {"LlamaTokenizer splits its own way",
       "llama2",
       prepending,
       {},
       " <s> a b",
       {1, 333, 1, 333, 307, 350}},
      {"and does not prepend to a space",
       "llama2",
       prepending,
       {},
       "  hi",
       {1, 333, 333, 314, 315}},
      {"legacy",
       "llama2",
       prepending,
       {{"tokenizer_class", "LlamaTokenizerFast"}, {"legacy", true}},
       "  hi",
       {1, 333, 333, 314, 315}},
      {"the plain class takes the file as it is",
       "llama2",
       prepending,
       {{"tokenizer_class", "PreTrainedTokenizerFast"}},
       "  hi",
       {1, 333, 333, 333, 314, 315}},
      {"no space in front",
       "llama2",
       prepending,
       {{"add_prefix_space", false}},
       "hi b",
       {1, 314, 315, 350}},
      {"truncation and padding are left out",
       "llama3",
       cutting,
       {},
       "one two three four five",
       {625, 411, 300, 86, 78, 300, 71, 272, 68, 454, 78, 84, 81, 454, 72, 379}},
      {"special tokens of the configuration",
       "smollm",
       Json::object(),
       {{"pad_token", "<pad>"}, {"extra_special_tokens", {"<x>", "abc"}}, {"image_token", "<img>"}},
       "<pad>abc<img>1",
       {600, 603, 601, 19}},
      {"the old list of special tokens",
       "smollm",
       Json::object(),
       listed,
       "a 123<s>",
       {67, 601, 600}},
      {"special tokens as text",
       "smollm",
       Json::object(),
       {{"split_special_tokens", true}},
       "<|im_end|>",
       {30, 94, 75, 79, 65, 320, 70, 94, 32}},
      {"flags count for nothing beside a tokenizer.json",
       "smollm",
       Json::object(),
       {{"add_bos_token", true}, {"add_eos_token", true}},
       "a",
       {67}},
      {"added tokens of the configuration",
       "smollm",
       Json::object(),
       decoder,
       "zzz  <|endoftext|> a",
       {600, 0, 67}},
      {"the old list of special_tokens_map.json, which the configuration's goes before",
       "smollm",
       Json::object(),
       {{"additional_special_tokens", {"AAA"}}},
       "AAA BBB",
       {600, 282, 36, 36},
       {{"additional_special_tokens", {"BBB"}}}},
      {"the new list of special_tokens_map.json, which follows the configuration's",
       "smollm",
       Json::object(),
       {{"extra_special_tokens", {"AAA"}}},
       "AAA BBB",
       {600, 223, 601},
       {{"extra_special_tokens", {"BBB", "AAA"}}}},
      {"special_tokens_map.json replaces the configuration's tokens",
       "smollm",
       Json::object(),
       {{"pad_token", "AAA"}},
       "is AAA BBB",
       {75, 85, 497, 35, 600},
       {{"pad_token", {{"content", "BBB"}, {"lstrip", true}}}}},
      {"special_tokens_map.json and added_tokens.json beside added_tokens_decoder",
       "smollm",
       Json::object(),
       {{"added_tokens_decoder", Json::object()}},
       "is AAA BBB",
       {75, 85, 497, 35, 282, 36, 36},
       {{"pad_token", "BBB"}},
       {{"AAA", 700}}},
      {"added_tokens.json",
       "smollm",
       Json::object(),
       Json::object(),
       "AAA BBB",
       {601, 223, 600},
       {{"pad_token", "AAA"}},
       {{"BBB", 605}, {"AAA", 607}}},
      {"added_tokens.json with ids that tokenizer.json has",
       "smollm",
       Json::object(),
       Json::object(),
       "is AAA<|im_end|>",
       {75, 85, 497, 35, 2},
       nullptr,
       {{"<|im_end|>", 2}, {"AAA", 1}}},
  };
}

Json ReadPatched(const std::string& path, const Json& patch) {
  const auto text = ReadFile(path);
  EXPECT_OK(text);
  Json json = Json::parse(*text);
  if (!patch.is_null()) json.merge_patch(patch);
  return json;
}

TEST(TokenizerTest, ReadsDirectoriesAsAutoTokenizerDoes) {
  for (const Variant& variant : Variants()) {
    SCOPED_TRACE(variant.name);
    TempDir directory;
    const std::string base = DataPath(std::string("tokenizers/") + variant.base);
    for (const auto& [file, patch] : {std::pair("/tokenizer.json", variant.tokenizer_patch),
                                      std::pair("/tokenizer_config.json", variant.config_patch)}) {
      ASSERT_OK(WriteFile(directory.path() + file, ReadPatched(base + file, patch).dump()));
    }
    for (const auto& [file, json] :
         {std::pair("special_tokens_map.json", variant.special_tokens_map),
          std::pair("added_tokens.json", variant.added_tokens)}) {
      if (json.is_null()) continue;
      ASSERT_OK(WriteFile(directory.File(file), json.dump()));
    }
    ASSERT_OK_AND_ASSIGN(const auto tokenizer, Tokenizer::FromDirectory(directory.path()));
    EXPECT_THAT(tokenizer->Encode(variant.text, true), IsOkAndHolds(variant.ids));
  }
}

TEST(TokenizerTest, KnowsTheEndTokenThatItsDirectoryNames) {
  for (const auto& [folder, text] :
       {std::pair("llama3", "<|end_of_text|>"), std::pair("smollm", "<|im_end|>"),
        std::pair("llama2", "</s>")}) {
    ASSERT_OK_AND_ASSIGN(const auto tokenizer,
                         Tokenizer::FromDirectory(DataPath(std::string("tokenizers/") + folder)));
    ASSERT_TRUE(tokenizer->end_token().has_value()) << folder;
    EXPECT_THAT(tokenizer->TokenId(text), IsOkAndHolds(*tokenizer->end_token()));
  }
}

TEST(TokenizerTest, ADirectoryNeedsNoTokenizerConfigButNotABrokenOne) {
  TempDir directory;
  ASSERT_OK_AND_ASSIGN(const std::string json,
                       ReadFile(DataPath("tokenizers/smollm/tokenizer.json")));
  ASSERT_OK(WriteFile(directory.File("tokenizer.json"), json));
  ASSERT_OK_AND_ASSIGN(const auto plain, Tokenizer::FromDirectory(directory.path()));
  EXPECT_EQ(plain->end_token(), std::nullopt);
  ASSERT_OK(WriteFile(directory.File("added_tokens.json"), R"({"BBB": 605})"));
  ASSERT_OK_AND_ASSIGN(const auto tokenizer, Tokenizer::FromDirectory(directory.path()));
  EXPECT_THAT(tokenizer->TokenId("BBB"), IsOkAndHolds(600));
  const std::string path = directory.File("tokenizer_config.json");
  ASSERT_OK(WriteFile(path, "{"));
  EXPECT_THAT(Tokenizer::FromDirectory(directory.path()), StatusIs(kInvalid, HasSubstr(path)));
}

}  // namespace
}  // namespace pricer
