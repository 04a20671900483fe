#include "model/prompt.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/test_data.h"
#include "tests/testing/tokenizer_lines.h"

namespace pricer {
namespace {

using ::pricer::testing::DataPath;
using ::pricer::testing::StatusIs;
using ::pricer::testing::TokenizerLines;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

using Ids = std::vector<int32_t>;

PromptTemplate DefaultPrompt(int64_t max_prompt_tokens = kDefaultMaxPromptTokens) {
  PromptTemplate prompt = *PromptTemplate::Preset("default", "USD");
  prompt.max_prompt_tokens = max_prompt_tokens;
  return prompt;
}

TEST(CurrencyWordsTest, DollarsHaveASignAndOthersTheirCode) {
  ASSERT_OK_AND_ASSIGN(const CurrencyWords dollars, WordsOfCurrency("USD"));
  EXPECT_EQ(dollars.unit, "US dollars");
  EXPECT_EQ(dollars.symbol, "$");
  ASSERT_OK_AND_ASSIGN(const CurrencyWords rupees, WordsOfCurrency("INR"));
  EXPECT_EQ(rupees.unit, "INR");
  EXPECT_EQ(rupees.symbol, "INR ");
}

TEST(CurrencyWordsTest, RefusesWhatIsNoCode) {
  for (const char* currency : {"", "US", "usd", "USDD", "U$D", "\xc3\xa9X"}) {
    EXPECT_THAT(WordsOfCurrency(currency), StatusIs(kInvalid, HasSubstr("currency")));
  }
}

TEST(PromptTemplateTest, PresetsHaveTheirWording) {
  const PromptTemplate prompt = DefaultPrompt();
  EXPECT_EQ(prompt.Render("A drill"),
            "What is a fair price for this product, in whole US dollars?\n\nA drill\n\nPrice: $");
  EXPECT_EQ(prompt.max_prompt_tokens, 192);
  ASSERT_OK_AND_ASSIGN(const PromptTemplate euros, PromptTemplate::Preset("default", "EUR"));
  EXPECT_EQ(euros.Render("A drill"),
            "What is a fair price for this product, in whole EUR?\n\nA drill\n\nPrice: EUR ");
  ASSERT_OK_AND_ASSIGN(const PromptTemplate reference, PromptTemplate::Preset("reference", "USD"));
  EXPECT_EQ(reference.preset, "reference");
  EXPECT_EQ(reference.Render("A drill"),
            "How much does this cost to the nearest dollar?\n\nA drill\n\nPrice is $");
  for (const PromptTemplate& preset : {prompt, euros, reference}) EXPECT_OK(preset.Validate());
}

TEST(PromptTemplateTest, RefusesOtherPresets) {
  EXPECT_THAT(PromptTemplate::Preset("custom", "USD"), StatusIs(kInvalid, HasSubstr("'custom'")));
  EXPECT_THAT(PromptTemplate::Preset("default", "dollars"), StatusIs(kInvalid));
  EXPECT_THAT(PromptTemplate::Preset("reference", "EUR"), StatusIs(kInvalid, HasSubstr("EUR")));
}

TEST(PromptTemplateTest, ValidateNamesWhatIsWrong) {
  const auto expect = [](auto change, const std::string& words) {
    PromptTemplate prompt = DefaultPrompt();
    change(prompt);
    EXPECT_THAT(prompt.Validate(), StatusIs(kInvalid, HasSubstr(words)));
  };
  expect([](auto& prompt) { prompt.prefix = ""; }, "prefix");
  expect([](auto& prompt) { prompt.prefix = " Price"; }, "prefix");
  expect([](auto& prompt) { prompt.prefix = "\nPrice"; }, "prefix");
  expect([](auto& prompt) { prompt.prefix = "Price \xff"; }, "prefix");
  expect([](auto& prompt) { prompt.question = "\xff"; }, "question");
  expect([](auto& prompt) { prompt.question = std::string(65537, 'a'); }, "question");
  expect([](auto& prompt) { prompt.max_prompt_tokens = 0; }, "max_prompt_tokens");
  expect([](auto& prompt) { prompt.max_prompt_tokens = (1 << 20) + 1; }, "max_prompt_tokens");
  PromptTemplate prompt = DefaultPrompt();
  prompt.question = "";
  EXPECT_OK(prompt.Validate());
}

// Texts that end and begin in all ways that matter to splitting rules.
std::vector<std::string> HardTexts() {
  std::vector<std::string> texts;
  const std::vector<std::string> ends = {"",  " ", "\n", "\n\n",   ".",      "!\n",
                                         "9", "$", "\t", "\r\n",   "\u3000", "漢",
                                         "'", "é", "<|", "\u200d", "😀",     "a\u0301"};
  for (const std::string& begin : ends) {
    for (const std::string& end : ends) texts.push_back(absl::StrCat(begin, "drill 20V", end));
  }
  for (const std::string& line : TokenizerLines()) {
    // A second beginning of sequence is an error of its own.
    const bool begins =
        absl::StrContains(line, "<s>") || absl::StrContains(line, "<|begin_of_text|>");
    if (!line.empty() && !begins) texts.push_back(line);
  }
  return texts;
}

std::string RandomText(std::mt19937& random, size_t pieces) {
  const std::vector<std::string> words = {"drill",
                                          " ",
                                          "  ",
                                          "\n",
                                          "\n\n",
                                          ".",
                                          ",",
                                          "149.99",
                                          " cordless",
                                          "é",
                                          "漢字",
                                          "😀",
                                          "👩‍👩‍👧",
                                          "Price",
                                          "$",
                                          "\t",
                                          "x",
                                          "<|im",
                                          " the",
                                          "\u00a0"};
  std::string text = "a";
  for (size_t i = 0; i < pieces; ++i) text += words[random() % words.size()];
  return text;
}

// The parts of a prompt by what the tokenizer says of the whole text, the slow way.
struct Parts {
  Tokenizer::Encoding whole;
  size_t head = 0;      // tokens that begin before the text
  size_t text_end = 0;  // first token that is not all inside the text
};

class EncodePromptTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    auto tokenizer = Tokenizer::FromDirectory(DataPath(std::string("tokenizers/") + GetParam()));
    ASSERT_OK(tokenizer);
    tokenizer_ = *std::move(tokenizer);
  }

  EncodedPrompt Encode(const PromptTemplate& prompt, const std::string& text) {
    const auto encoded = EncodePrompt(prompt, *tokenizer_, text);
    EXPECT_OK(encoded);
    return encoded.ok() ? *encoded : EncodedPrompt();
  }

  Parts Split(const PromptTemplate& prompt, const std::string& text) {
    Parts parts;
    parts.whole = *tokenizer_->EncodeWithOffsets(prompt.Render(text), true);
    const size_t begin = prompt.question.size() + 2;
    const auto& offsets = parts.whole.byte_offsets;
    size_t i = parts.whole.leading_special;
    while (i < offsets.size() && offsets[i].first < begin) ++i;
    parts.head = i;
    const size_t last = offsets.size() - parts.whole.trailing_special;
    while (i < last && offsets[i].second <= begin + text.size()) ++i;
    parts.text_end = i;
    return parts;
  }

  // Tokens of "\n\n" and prefix, and what the tokenizer adds behind them.
  Ids Tail(const PromptTemplate& prompt) {
    const Parts parts = Split(prompt, "x");
    EXPECT_EQ(parts.text_end, parts.head + 1);
    return Ids(parts.whole.ids.begin() + parts.text_end, parts.whole.ids.end());
  }

  // Checks a prompt against the encoding of the whole.
  void ExpectRight(const PromptTemplate& prompt, const std::string& text) {
    const Parts parts = Split(prompt, text);
    const EncodedPrompt encoded = Encode(prompt, text);
    const size_t limit = prompt.max_prompt_tokens;
    ASSERT_LE(encoded.ids.size(), limit);
    ASSERT_EQ(encoded.truncated, parts.whole.ids.size() > limit);
    if (!encoded.truncated) {
      ASSERT_EQ(encoded.ids, parts.whole.ids);
      return;
    }
    const Ids tail = Tail(prompt);
    ASSERT_GE(encoded.ids.size(), parts.head + tail.size());
    const size_t kept = encoded.ids.size() - tail.size();
    ASSERT_LE(kept, parts.text_end);
    ASSERT_TRUE(std::equal(tail.begin(), tail.end(), encoded.ids.begin() + kept));
    ASSERT_TRUE(
        std::equal(encoded.ids.begin(), encoded.ids.begin() + kept, parts.whole.ids.begin()));
    const auto& offsets = parts.whole.byte_offsets;
    const auto splits_character = [&](size_t i) {
      return i > parts.head && offsets[i].first < offsets[i - 1].second;
    };
    EXPECT_FALSE(splits_character(kept));
    // No room is wasted but for a character's sake.
    for (size_t i = kept + 1; i <= std::min(limit - tail.size(), parts.text_end); ++i) {
      EXPECT_TRUE(splits_character(i)) << i;
    }
  }

  std::unique_ptr<Tokenizer> tokenizer_;
};

TEST_P(EncodePromptTest, APromptThatFitsIsTheEncodingOfTheWholeString) {
  for (const std::string& text : HardTexts()) {
    SCOPED_TRACE(text);
    ExpectRight(DefaultPrompt(4096), text);
  }
}

TEST_P(EncodePromptTest, OnePrefixHasTheSameTokensBehindEveryText) {
  for (const char* currency : {"USD", "EUR"}) {
    PromptTemplate prompt = *PromptTemplate::Preset("default", currency);
    prompt.max_prompt_tokens = 4096;
    const Ids tail = Tail(prompt);
    const Parts neutral = Split(prompt, "x");
    const size_t begin = prompt.Render("x").size() - prompt.prefix.size();
    const auto& offsets = neutral.whole.byte_offsets;
    size_t first = neutral.text_end;
    while (offsets[first].first < begin) ++first;
    ASSERT_EQ(offsets[first].first, begin);
    const Ids prefix(neutral.whole.ids.begin() + first, neutral.whole.ids.end());
    for (const std::string& text : HardTexts()) {
      const Ids ids = Encode(prompt, text).ids;
      ASSERT_GT(ids.size(), prefix.size());
      ASSERT_TRUE(std::equal(prefix.rbegin(), prefix.rend(), ids.rbegin())) << text;
    }
  }
}

TEST_P(EncodePromptTest, EveryLimitCutsTheTextAlone) {
  std::mt19937 random(3);
  const PromptTemplate base = DefaultPrompt();
  const size_t fixed = Split(base, "x").head + Tail(base).size();
  for (int round = 0; round < 400; ++round) {
    const std::string text = RandomText(random, 1 + random() % 80);
    SCOPED_TRACE(text);
    // A text may join the question's last token, but never make the head longer than this.
    ExpectRight(DefaultPrompt(static_cast<int64_t>(fixed + 2 + random() % 100)), text);
  }
}

TEST_P(EncodePromptTest, LongTextsAreCutAsIfTheWholeHadBeenRead) {
  std::mt19937 random(5);
  for (int round = 0; round < 6; ++round) {
    const std::string text = RandomText(random, 20000);
    SCOPED_TRACE(round);
    ExpectRight(DefaultPrompt(), text);
    ExpectRight(DefaultPrompt(40 + static_cast<int64_t>(random() % 3000)), text);
  }
}

TEST_P(EncodePromptTest, TextsWithFewPlacesToSplitAreCutAsIfTheWholeHadBeenRead) {
  std::mt19937 random(6);
  std::string word;
  for (int i = 0; i < 100000; ++i) word += static_cast<char>('a' + random() % 26);
  for (const std::string& text :
       {word, "short " + word, word.substr(0, 17000) + " and more words " + word,
        std::string(100000, 'a'), std::string(100000, ' ') + "x", std::string(100000, '\n') + "x",
        std::string(100000, '=')}) {
    SCOPED_TRACE(text.substr(0, 20));
    ExpectRight(DefaultPrompt(), text);
  }
}

TEST_P(EncodePromptTest, NoCharacterIsCutInTwo) {
  std::string text;
  for (int i = 0; i < 40; ++i) text += i % 2 == 0 ? "😀" : "漢";
  const PromptTemplate base = DefaultPrompt();
  const size_t fixed = Split(base, "x").head + Tail(base).size();
  for (size_t limit = fixed; limit < fixed + 90; ++limit) {
    const EncodedPrompt encoded = Encode(DefaultPrompt(static_cast<int64_t>(limit)), text);
    EXPECT_GE(encoded.ids.size() + 3, limit);
    ASSERT_OK_AND_ASSIGN(const std::string decoded, tokenizer_->Decode(encoded.ids, true));
    EXPECT_THAT(decoded, Not(HasSubstr("\ufffd"))) << limit;
  }
}

TEST_P(EncodePromptTest, QuestionAndPrefixAreNeverCut) {
  const PromptTemplate base = DefaultPrompt();
  const int64_t fixed = static_cast<int64_t>(Split(base, "x").head + Tail(base).size());
  const EncodedPrompt bare = Encode(DefaultPrompt(fixed), "drill with two batteries");
  EXPECT_EQ(static_cast<int64_t>(bare.ids.size()), fixed);
  EXPECT_TRUE(bare.truncated);
  EXPECT_THAT(EncodePrompt(DefaultPrompt(fixed - 1), *tokenizer_, "drill with two batteries"),
              StatusIs(kInvalid, AllOf(HasSubstr(absl::StrCat(fixed, " tokens")),
                                       HasSubstr("max_prompt_tokens"))));
}

TEST_P(EncodePromptTest, RefusesEmptyTextAndTextThatIsNoUtf8) {
  EXPECT_THAT(EncodePrompt(DefaultPrompt(), *tokenizer_, ""),
              StatusIs(kInvalid, HasSubstr("text")));
  // Also where the text would be cut before that byte.
  for (const size_t size : {10, 100000}) {
    EXPECT_THAT(EncodePrompt(DefaultPrompt(), *tokenizer_, std::string(size, 'a') + "\xff"),
                StatusIs(kInvalid, HasSubstr(absl::StrCat("at byte ", size))));
  }
}

TEST_P(EncodePromptTest, RefusesATemplateThatIsNotValid) {
  EXPECT_THAT(EncodePrompt(DefaultPrompt(0), *tokenizer_, "x"), StatusIs(kInvalid));
}

TEST_P(EncodePromptTest, ControlCharactersAreText) {
  ExpectRight(DefaultPrompt(), std::string("a\0b\x01\x7f", 5));
}

INSTANTIATE_TEST_SUITE_P(Tokenizers, EncodePromptTest,
                         ::testing::Values("smollm", "llama3", "llama2"),
                         [](const auto& info) { return std::string(info.param); });

class BosTest : public ::testing::Test {
 protected:
  BosTest() : tokenizer_(*Tokenizer::FromDirectory(DataPath("tokenizers/llama3"))) {}
  int64_t Count(const Ids& ids) { return std::count(ids.begin(), ids.end(), 625); }

  std::unique_ptr<Tokenizer> tokenizer_;
};

TEST_F(BosTest, StandsOnceInFront) {
  ASSERT_OK_AND_ASSIGN(const EncodedPrompt encoded,
                       EncodePrompt(DefaultPrompt(), *tokenizer_, "A drill"));
  EXPECT_EQ(encoded.ids[0], 625);
  EXPECT_EQ(Count(encoded.ids), 1);
}

TEST_F(BosTest, ASecondOneIsAnError) {
  EXPECT_THAT(EncodePrompt(DefaultPrompt(), *tokenizer_, "A <|begin_of_text|> drill"),
              StatusIs(kInvalid, AllOf(HasSubstr("625"), HasSubstr("2 times"))));
  PromptTemplate prompt = DefaultPrompt();
  prompt.question = "<|begin_of_text|>How much?";
  EXPECT_THAT(EncodePrompt(prompt, *tokenizer_, "A drill"), StatusIs(kInvalid));
}

TEST_F(BosTest, OneThatIsCutOffDoesNoHarm) {
  std::string text = "A drill";
  for (int i = 0; i < 300; ++i) text += " and more";
  ASSERT_OK_AND_ASSIGN(const EncodedPrompt encoded,
                       EncodePrompt(DefaultPrompt(), *tokenizer_, text + "<|begin_of_text|>"));
  EXPECT_TRUE(encoded.truncated);
  EXPECT_EQ(Count(encoded.ids), 1);
}

TEST(VocabularyTest, RefusesATokenThatTheModelDoesNotKnow) {
  const std::string directory = DataPath("tokenizers/llama3");
  const auto whole = *Tokenizer::FromDirectory(directory);
  ASSERT_OK_AND_ASSIGN(const int32_t last, whole->TokenId("<|end_of_text|>"));
  // All words are below the special tokens.
  const auto cut = *Tokenizer::FromDirectory(directory, last);
  EXPECT_OK(EncodePrompt(DefaultPrompt(), *cut, "A drill"));
  EXPECT_OK(EncodePrompt(DefaultPrompt(), *whole, "A drill<|end_of_text|>"));
  EXPECT_THAT(EncodePrompt(DefaultPrompt(), *cut, "A drill<|end_of_text|>"),
              StatusIs(kInvalid, AllOf(HasSubstr(absl::StrCat("below ", last)),
                                       HasSubstr("'<|end_of_text|>'"))));
  std::string text = "A drill";
  for (int i = 0; i < 300; ++i) text += " and more";
  EXPECT_OK(EncodePrompt(DefaultPrompt(), *cut, text + "<|end_of_text|>"));
}

TEST_F(BosTest, ATokenizerThatAddsNoneTakesATextThatSpellsIt) {
  const auto smollm = *Tokenizer::FromDirectory(DataPath("tokenizers/smollm"));
  EXPECT_OK(EncodePrompt(DefaultPrompt(), *smollm, "<|im_start|>drill<|im_start|>"));
}

}  // namespace
}  // namespace pricer
