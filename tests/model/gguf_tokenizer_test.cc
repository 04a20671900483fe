#include "model/gguf_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/status_macros.h"
#include "model/tokenizer.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/tiny_gguf.h"

namespace pricer {
namespace {

using ::pricer::testing::IsOkAndHolds;
using ::pricer::testing::StatusIs;
using ::pricer::testing::TinyGguf;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Json = nlohmann::json;

constexpr auto kDataLoss = absl::StatusCode::kDataLoss;
constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;

class GgufTokenizerTest : public ::testing::Test {
 protected:
  absl::StatusOr<GgufTokenizer> Read(const TinyGguf& gguf) {
    RETURN_IF_ERROR(WriteFile(path_, gguf.Build()));
    ASSIGN_OR_RETURN(file_, GgufFile::Open(path_));
    return ReadGgufTokenizer(*file_);
  }
  absl::StatusOr<std::unique_ptr<Tokenizer>> Load(const TinyGguf& gguf) {
    ASSIGN_OR_RETURN(const GgufTokenizer made, Read(gguf));
    RETURN_IF_ERROR(WriteFile(directory_.File("tokenizer.json"), made.tokenizer_json));
    RETURN_IF_ERROR(
        WriteFile(directory_.File("tokenizer_config.json"), made.tokenizer_config_json));
    return Tokenizer::FromDirectory(directory_.path());
  }
  template <typename Change>
  void ExpectErrorAfter(Change change, absl::StatusCode code, const std::string& words) {
    TinyGguf gguf;
    change(gguf);
    EXPECT_THAT(Read(gguf), StatusIs(code, AllOf(HasSubstr(path_), HasSubstr(words))));
  }
  // Number of pieces that the splitting rule `pre` makes of a text.
  size_t Pieces(const std::string& pre, const std::string& text) {
    TinyGguf gguf;
    gguf.String("tokenizer.ggml.pre", pre);
    gguf.Bool("tokenizer.ggml.add_bos_token", false);
    const auto tokenizer = Load(gguf);
    EXPECT_OK(tokenizer);
    const auto encoding = (*tokenizer)->EncodeWithOffsets(text, false);
    EXPECT_OK(encoding);
    return encoding->pieces.back() + 1;
  }

  testing::TempDir directory_;
  const std::string path_ = directory_.File("model.gguf");
  std::unique_ptr<GgufFile> file_;
};

TEST_F(GgufTokenizerTest, MergesAndSpecialTokensAreTheFiles) {
  ASSERT_OK_AND_ASSIGN(const auto tokenizer, Load(TinyGguf()));
  EXPECT_THAT(tokenizer->Encode("abb<|end|>a<think>", true),
              IsOkAndHolds(ElementsAre(256, 'b', 258, 'a', 259)));
  EXPECT_THAT(tokenizer->Encode("\u00e9\n", true), IsOkAndHolds(ElementsAre(0xc3, 0xa9, '\n')));
  EXPECT_THAT(tokenizer->Decode({256, ' ', 0xc3, 0xa9}, true), IsOkAndHolds("ab \u00e9"));
  EXPECT_THAT(tokenizer->Decode({258, 259}, true), IsOkAndHolds("<think>"));
  EXPECT_EQ(tokenizer->vocabulary_size(), 260);
}

TEST_F(GgufTokenizerTest, WithoutKindsOnlyNamedTokensAreSpecial) {
  TinyGguf gguf;
  gguf.values.erase("tokenizer.ggml.token_type");
  ASSERT_OK_AND_ASSIGN(const auto tokenizer, Load(gguf));
  EXPECT_THAT(tokenizer->Encode("ab<|end|>", true), IsOkAndHolds(ElementsAre(256, 258)));
  EXPECT_THAT(tokenizer->Decode({'a', 258, 259}, true), IsOkAndHolds("a<think>"));
}

TEST_F(GgufTokenizerTest, SplittingRulesDifferInDigitsAndLineEnds) {
  EXPECT_EQ(Pieces("smollm", "1234567"), 7);
  EXPECT_EQ(Pieces("qwen2", "1234567"), 7);
  EXPECT_EQ(Pieces("llama-bpe", "1234567"), 3);
  EXPECT_EQ(Pieces("llama3", "1234567"), 3);
  EXPECT_EQ(Pieces("gpt-2", "1234567"), 1);
  EXPECT_EQ(Pieces("smollm", "a.\n\nb"), 5);
  EXPECT_EQ(Pieces("gpt-2", "a.\n\nb"), 5);
  EXPECT_EQ(Pieces("llama-bpe", "a.\n\nb"), 3);
  EXPECT_EQ(Pieces("qwen2", "a.\n\nb"), 3);
}

TEST_F(GgufTokenizerTest, Llama3TakesPiecesThatAreTokensWhole) {
  TinyGguf gguf;
  gguf.tokens.push_back("bc");
  gguf.Strings("tokenizer.ggml.tokens", gguf.tokens);
  gguf.Integers("tokenizer.ggml.token_type", std::vector<int32_t>(gguf.tokens.size(), 1));
  ASSERT_OK_AND_ASSIGN(const auto smollm, Load(gguf));
  EXPECT_THAT(smollm->Encode("bc", false), IsOkAndHolds(ElementsAre('b', 'c')));
  gguf.String("tokenizer.ggml.pre", "llama-bpe");
  ASSERT_OK_AND_ASSIGN(const auto llama, Load(gguf));
  EXPECT_THAT(llama->Encode("bc", false), IsOkAndHolds(ElementsAre(260)));
}

TEST_F(GgufTokenizerTest, Qwen2ComposesCharacters) {
  TinyGguf gguf;
  gguf.String("tokenizer.ggml.pre", "qwen2");
  ASSERT_OK_AND_ASSIGN(const auto tokenizer, Load(gguf));
  EXPECT_THAT(tokenizer->Encode("e\u0301", false), IsOkAndHolds(ElementsAre(0xc3, 0xa9)));
}

TEST_F(GgufTokenizerTest, TokensAreAddedToATextAsTheFileSays) {
  const auto ids = [&](const TinyGguf& gguf) {
    const auto tokenizer = Load(gguf);
    EXPECT_OK(tokenizer);
    return (*tokenizer)->Encode("b", true);
  };
  TinyGguf gguf;
  EXPECT_THAT(ids(gguf), IsOkAndHolds(ElementsAre('b')));
  gguf.Bool("tokenizer.ggml.add_bos_token", true);
  EXPECT_THAT(ids(gguf), IsOkAndHolds(ElementsAre(257, 'b')));
  gguf.Bool("tokenizer.ggml.add_eos_token", true);
  EXPECT_THAT(ids(gguf), IsOkAndHolds(ElementsAre(257, 'b', 258)));
  TinyGguf llama;
  llama.String("tokenizer.ggml.pre", "llama-bpe");
  EXPECT_THAT(ids(llama), IsOkAndHolds(ElementsAre(257, 'b')));
  llama.Bool("tokenizer.ggml.add_bos_token", false);
  EXPECT_THAT(ids(llama), IsOkAndHolds(ElementsAre('b')));
}

TEST_F(GgufTokenizerTest, ThePaddingTokenIsTheFilesElseTheLast) {
  TinyGguf gguf;
  ASSERT_OK_AND_ASSIGN(const GgufTokenizer without, Read(gguf));
  EXPECT_EQ(without.bos_token_id, 257);
  EXPECT_EQ(without.eos_token_id, 258);
  EXPECT_EQ(without.pad_token_id, 258);
  EXPECT_EQ(without.token_count, 260);
  gguf.Integer("tokenizer.ggml.padding_token_id", 0);
  ASSERT_OK_AND_ASSIGN(const GgufTokenizer with, Read(gguf));
  EXPECT_EQ(with.pad_token_id, 0);
}

TEST_F(GgufTokenizerTest, TheConfigurationNamesTokensAndTemplate) {
  TinyGguf gguf;
  gguf.String("tokenizer.chat_template", "{{ messages }}");
  ASSERT_OK_AND_ASSIGN(const GgufTokenizer made, Read(gguf));
  const Json config = Json::parse(made.tokenizer_config_json);
  EXPECT_EQ(config["tokenizer_class"], "PreTrainedTokenizerFast");
  EXPECT_EQ(config["bos_token"], "<|begin|>");
  EXPECT_EQ(config["eos_token"], "<|end|>");
  EXPECT_EQ(config["pad_token"], "<|end|>");
  EXPECT_EQ(config["chat_template"], "{{ messages }}");
  EXPECT_EQ(config["model_max_length"], 131072);
}

TEST_F(GgufTokenizerTest, RefusesModelsAndRulesThatAreNotKnownByName) {
  ExpectErrorAfter([](TinyGguf& gguf) { gguf.String("tokenizer.ggml.model", "llama"); },
                   kUnimplemented, "'llama' is not supported; expected gpt2");
  ExpectErrorAfter([](TinyGguf& gguf) { gguf.String("tokenizer.ggml.pre", "default"); },
                   kUnimplemented, "'default' is not supported");
}

TEST_F(GgufTokenizerTest, MissingKeysAreNamed) {
  for (const char* key : {"tokenizer.ggml.model", "tokenizer.ggml.pre", "tokenizer.ggml.tokens",
                          "tokenizer.ggml.merges"}) {
    ExpectErrorAfter([&](TinyGguf& gguf) { gguf.values.erase(key); }, absl::StatusCode::kNotFound,
                     key);
  }
}

TEST_F(GgufTokenizerTest, RefusesWhatContradictsItself) {
  const auto with_token = [](const std::string& token) {
    return [token](TinyGguf& gguf) {
      gguf.tokens[300 % gguf.tokens.size()] = token;
      gguf.Strings("tokenizer.ggml.tokens", gguf.tokens);
    };
  };
  ExpectErrorAfter(with_token("a"), kDataLoss, "'a', is there twice");
  ExpectErrorAfter(with_token(""), kDataLoss, "is empty");
  ExpectErrorAfter(with_token("\xff"), kDataLoss, "is no UTF-8");
  ExpectErrorAfter([](TinyGguf& gguf) { gguf.Strings("tokenizer.ggml.merges", {"a \xff"}); },
                   kDataLoss, "tokenizer.ggml.merges");
  ExpectErrorAfter([](TinyGguf& gguf) { gguf.Integers("tokenizer.ggml.token_type", {1}); },
                   kDataLoss, "one number for each of 260 tokens, got 1");
  ExpectErrorAfter([](TinyGguf& gguf) { gguf.Integer("tokenizer.ggml.bos_token_id", 260); },
                   kDataLoss, "'tokenizer.ggml.bos_token_id': expected an id below 260, got 260");
  ExpectErrorAfter(
      [](TinyGguf& gguf) {
        gguf.values.erase("tokenizer.ggml.bos_token_id");
        gguf.Bool("tokenizer.ggml.add_bos_token", true);
      },
      kDataLoss, "'tokenizer.ggml.bos_token_id' is missing");
  ExpectErrorAfter([](TinyGguf& gguf) { gguf.String("tokenizer.chat_template", "\xff"); },
                   kDataLoss, "tokenizer.chat_template");
}

}  // namespace
}  // namespace pricer
