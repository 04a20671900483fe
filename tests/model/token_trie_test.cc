#include "model/token_trie.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <string>
#include <utility>

#include "base/file.h"
#include "model/prompt.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/test_data.h"

namespace pricer {
namespace {

using ::pricer::testing::DataPath;
using ::pricer::testing::IsOkAndHolds;
using ::pricer::testing::StatusIs;
using ::pricer::testing::TempDir;
using ::testing::AllOf;
using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using Json = nlohmann::json;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kPrecondition = absl::StatusCode::kFailedPrecondition;
constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;

std::unique_ptr<Tokenizer> Golden(const std::string& name) {
  auto tokenizer = Tokenizer::FromDirectory(DataPath("tokenizers/" + name));
  EXPECT_OK(tokenizer);
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

std::unique_ptr<Tokenizer> Parse(const Json& json) {
  TempDir directory;
  EXPECT_OK(WriteFile(directory.File("tokenizer.json"), json.dump()));
  auto tokenizer = Tokenizer::FromDirectory(directory.path());
  EXPECT_OK(tokenizer);
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

std::unique_ptr<Tokenizer> Changed(const std::string& name,
                                   const std::function<void(Json&)>& change) {
  const auto text = ReadFile(DataPath("tokenizers/" + name + "/tokenizer.json"));
  EXPECT_OK(text);
  Json json = Json::parse(*text);
  change(json);
  return Parse(json);
}

// As all models of the Llama 3 family: the small golden vocabulary has a few of these numbers.
std::unique_ptr<Tokenizer> WithWholePrices() {
  return Changed("llama3", [](Json& json) {
    int id = 1000;
    for (int price = 0; price < 1000; ++price) {
      Json& token = json["model"]["vocab"][std::to_string(price)];
      if (token.is_null()) token = id++;
    }
  });
}

// As all models of the Llama 2 family: the golden vocabulary also joins digits with others.
std::unique_ptr<Tokenizer> WithSeparateDigits() {
  return Changed("llama2", [](Json& json) {
    Json kept = Json::array();
    for (const Json& merge : json["model"]["merges"]) {
      const std::string text = merge.dump();
      if (std::none_of(text.begin(), text.end(), ::isdigit)) kept.push_back(merge);
    }
    json["model"]["merges"] = kept;
  });
}

std::vector<std::string> Prompts() {
  std::vector<std::string> prompts = {"$", "Price is $"};
  for (const auto& [preset, currency] :
       {std::pair("default", "USD"), std::pair("reference", "USD"), std::pair("default", "EUR")}) {
    const auto prompt = PromptTemplate::Preset(preset, currency);
    EXPECT_OK(prompt);
    prompts.push_back(prompt->Render("DEWALT 20V drill, 2 pack"));
  }
  return prompts;
}

TEST(PriceTokensTest, FindsWholePricesInPlace) {
  const auto tokenizer = WithWholePrices();
  ASSERT_NE(tokenizer, nullptr);
  for (const std::string& prompt : Prompts()) {
    ASSERT_OK_AND_ASSIGN(const PriceTokens tokens, PriceTokens::Probe(*tokenizer, prompt));
    EXPECT_EQ(tokens.kind, PriceTokens::Kind::kWhole);
    ASSERT_THAT(tokens.ids, SizeIs(1000));
    EXPECT_THAT(std::set<int32_t>(tokens.ids.begin(), tokens.ids.end()), SizeIs(1000));
    for (int price = 0; price < 1000; ++price) {
      EXPECT_THAT(tokenizer->TokenId(std::to_string(price)), IsOkAndHolds(tokens.ids[price]));
    }
  }
}

void ExpectDigits(const Tokenizer& tokenizer, const std::string& prompt) {
  SCOPED_TRACE(prompt);
  ASSERT_OK_AND_ASSIGN(const PriceTokens tokens, PriceTokens::Probe(tokenizer, prompt));
  EXPECT_EQ(tokens.kind, PriceTokens::Kind::kDigits);
  ASSERT_THAT(tokens.ids, SizeIs(10));
  for (int digit = 0; digit < 10; ++digit) {
    EXPECT_THAT(tokenizer.TokenId(std::to_string(digit)), IsOkAndHolds(tokens.ids[digit]));
  }
  EXPECT_THAT(tokenizer.TokenId(","), IsOkAndHolds(tokens.comma));
}

TEST(PriceTokensTest, FindsDigitsOfAByteLevelTokenizer) {
  const auto tokenizer = Golden("smollm");
  ASSERT_NE(tokenizer, nullptr);
  for (const std::string& prompt : Prompts()) ExpectDigits(*tokenizer, prompt);
}

// Such a tokenizer spells "1" alone with the token of " 1", which does not stand behind "$".
TEST(PriceTokensTest, FindsDigitsOfASentencePieceTokenizer) {
  const auto tokenizer = WithSeparateDigits();
  ASSERT_NE(tokenizer, nullptr);
  for (const std::string& prompt : Prompts()) ExpectDigits(*tokenizer, prompt);
}

TEST(PriceTokensTest, ATokenThatJoinsPromptAndDigitsIsNamed) {
  for (const char* name : {"llama2", "llama2-flags"}) {
    const auto tokenizer = Golden(name);
    ASSERT_NE(tokenizer, nullptr);
    EXPECT_THAT(PriceTokens::Probe(*tokenizer, "Price is $"),
                StatusIs(kPrecondition, AllOf(HasSubstr("when '1' follows"),
                                              HasSubstr("got 'is' (615) '$1' (491)"),
                                              HasSubstr("has 'is' (615) '$' (360) alone"))));
  }
}

TEST(PriceTokensTest, ATokenAtTheEndOfEveryTextIsNamed) {
  const auto tokenizer = Changed("smollm", [](Json& json) {
    json["post_processor"] = Json::parse(R"({"type": "TemplateProcessing",
        "single": [{"Sequence": {"id": "A", "type_id": 0}},
                   {"SpecialToken": {"id": "<|im_end|>", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|im_end|>": {"id": "<|im_end|>", "ids": [2],
                                          "tokens": ["<|im_end|>"]}}})");
  });
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_THAT(PriceTokens::Probe(*tokenizer, "Price is $"),
              StatusIs(kPrecondition, AllOf(HasSubstr("when '0' follows"), HasSubstr("'0' (18)"),
                                            HasSubstr("'<|im_end|>' (2) alone"))));
}

// The golden vocabulary has some of the numbers, as that of GPT-2 has.
TEST(PriceTokensTest, NumbersThatAreNeitherWholeNorSplitAreNamed) {
  const auto tokenizer = Golden("llama3");
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_THAT(PriceTokens::Probe(*tokenizer, "Price is $"),
              StatusIs(kUnimplemented, AllOf(HasSubstr("got '2' (17) '1' (16) for 21;"),
                                             HasSubstr("got '10' ("), HasSubstr(") for 10"))));
}

TEST(PriceTokensTest, DigitsThatDependOnTheirPlaceAreNamed) {
  Json vocabulary = {{"[UNK]", 0}, {"$", 1}, {",", 2}};
  for (int digit = 0; digit < 10; ++digit) {
    vocabulary[std::to_string(digit)] = 10 + digit;
    vocabulary["##" + std::to_string(digit)] = 20 + digit;
  }
  const auto tokenizer = Parse({{"version", "1.0"},
                                {"pre_tokenizer", {{"type", "Whitespace"}}},
                                {"model",
                                 {{"type", "WordPiece"},
                                  {"unk_token", "[UNK]"},
                                  {"continuing_subword_prefix", "##"},
                                  {"max_input_chars_per_word", 100},
                                  {"vocab", vocabulary}}}});
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_THAT(PriceTokens::Probe(*tokenizer, "$"),
              StatusIs(kUnimplemented, HasSubstr("'1' (11) '##0' (20) for 10")));
}

TEST(PriceTokensTest, PricesThatShareATokenAreNamed) {
  const auto tokenizer = Parse(
      {{"version", "1.0"},
       {"pre_tokenizer", {{"type", "Whitespace"}}},
       {"model", {{"type", "WordLevel"}, {"unk_token", "?"}, {"vocab", {{"?", 0}, {"0", 1}}}}}});
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_THAT(PriceTokens::Probe(*tokenizer, "$"),
              StatusIs(kUnimplemented, HasSubstr("got '?' (0) for 1 and for 2")));
}

TEST(PriceTokensTest, ACommaThatJoinsADigitIsNamed) {
  const auto tokenizer = Changed("smollm", [](Json& json) {
    json["added_tokens"].push_back({{"id", 600},
                                    {"content", "7,"},
                                    {"single_word", false},
                                    {"lstrip", false},
                                    {"rstrip", false},
                                    {"normalized", false},
                                    {"special", false}});
  });
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_THAT(PriceTokens::Probe(*tokenizer, "Price is $"),
              StatusIs(kUnimplemented, AllOf(HasSubstr("comma"), HasSubstr("got '7,' (600)"))));
}

TEST(PriceTokensTest, TokensOutsideOfTheModelAreRefused) {
  ASSERT_OK_AND_ASSIGN(const auto tokenizer,
                       Tokenizer::FromDirectory(DataPath("tokenizers/smollm"), 27));
  EXPECT_THAT(PriceTokens::Probe(*tokenizer, "$"), StatusIs(kInvalid, HasSubstr("27")));
  EXPECT_THAT(PriceTokens::Probe(*tokenizer, "\xff$"), StatusIs(kInvalid, HasSubstr("UTF-8")));
}

constexpr int32_t kFirstDigitId = 100;

PriceTokens Digits() {
  PriceTokens tokens;
  tokens.kind = PriceTokens::Kind::kDigits;
  tokens.comma = 50;
  for (int digit = 0; digit < 10; ++digit) tokens.ids.push_back(kFirstDigitId + digit);
  return tokens;
}

// What follows which digits.
using Table = std::map<std::string, NextTokenProbabilities>;

// Ten digits and the comma get a share of 1 each, the rest ends the number. One in four is 0;
// `sharpness` sets how unlike they are.
NextTokenProbabilities RandomProbabilities(std::mt19937_64& random, double sharpness) {
  std::array<double, 12> shares;
  double sum = 0;
  for (double& share : shares) {
    const double unit = static_cast<double>(random() >> 11) * 0x1p-53;
    share = random() % 4 == 0 ? 0.0 : std::exp(-sharpness * unit);
    sum += share;
  }
  NextTokenProbabilities next;
  if (sum == 0) return next;
  for (int digit = 0; digit < 10; ++digit) next.digits[digit] = shares[digit] / sum;
  next.comma = shares[10] / sum;
  return next;
}

// Behind every string of at most three digits, leading zeros included.
Table RandomTable(uint64_t seed, double sharpness) {
  std::mt19937_64 random(seed);
  Table table;
  std::vector<std::string> level = {""};
  for (int depth = 0; depth <= 3; ++depth) {
    std::vector<std::string> below;
    for (const std::string& digits : level) {
      table[digits] = RandomProbabilities(random, sharpness);
      for (char digit = '0'; digit <= '9'; ++digit) below.push_back(digits + digit);
    }
    level = std::move(below);
  }
  return table;
}

double Terminator(const NextTokenProbabilities& next) {
  double rest = 1.0 - next.comma;
  for (const double digit : next.digits) rest -= digit;
  return rest;
}

// Probability that the text behind the prompt begins with these digits.
double MassOf(const Table& table, const std::string& digits) {
  double mass = 1.0;
  for (size_t i = 0; i < digits.size(); ++i) {
    mass *= table.at(digits.substr(0, i)).digits[digits[i] - '0'];
  }
  return mass;
}

// Every text of up to four tokens on its own.
PriceTree::Result BruteForce(const Table& table) {
  PriceTree::Result result;
  result.prices.resize(1000);
  const NextTokenProbabilities& root = table.at("");
  result.not_a_price = Terminator(root) + root.comma;
  for (int price = 0; price < 1000; ++price) {
    const std::string digits = std::to_string(price);
    const NextTokenProbabilities& next = table.at(digits);
    const double mass = MassOf(table, digits);
    result.prices[price] = mass * Terminator(next);
    result.overflow += mass * next.comma;
    for (const double digit : next.digits) {
      if (price == 0) result.not_a_price += mass * digit;
      if (price >= 100) result.overflow += mass * digit;
    }
  }
  return result;
}

double Total(const PriceTree::Result& result) {
  double sum = result.pruned + result.overflow + result.not_a_price;
  for (const double price : result.prices) sum += price;
  return sum;
}

// A node's digits, out of the tokens of it and its ancestors.
std::string DigitsOf(const PriceTree& tree, const PriceNode& node) {
  std::string digits;
  if (node.parent >= 0) digits = DigitsOf(tree, tree.Level(node.depth - 1)[node.parent]);
  return digits + static_cast<char>('0' + node.token - kFirstDigitId);
}

// Answers the tree's questions out of the table.
void Evaluate(const Table& table, PriceTree* tree) {
  ASSERT_OK(tree->SetRoot(table.at("").digits));
  for (int depth = 1; depth <= kMaxPriceDigits; ++depth) {
    std::vector<NextTokenProbabilities> next;
    int32_t last = -1;
    for (const PriceNode& node : tree->Level(depth)) {
      const std::string digits = DigitsOf(*tree, node);
      ASSERT_EQ(node.depth, depth);
      ASSERT_EQ(digits, std::to_string(node.prefix));
      ASSERT_EQ(digits.size(), depth);
      ASSERT_GT(node.prefix, last);
      last = node.prefix;
      next.push_back(table.at(digits));
    }
    ASSERT_OK(tree->SetLevel(depth, next));
  }
}

TEST(PriceTreeTest, WithoutPruningItIsTheSumOverAllTexts) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const Table table = RandomTable(seed, seed % 2 == 0 ? 1 : 12);
    PriceTree tree(Digits(), 0.0);
    ASSERT_NO_FATAL_FAILURE(Evaluate(table, &tree));
    const PriceTree::Result expected = BruteForce(table);
    const PriceTree::Result& result = tree.result();
    EXPECT_THAT(tree.Level(1), SizeIs(10));
    EXPECT_THAT(tree.Level(2), SizeIs(90));
    EXPECT_THAT(tree.Level(3), SizeIs(900));
    for (int price = 0; price < 1000; ++price) {
      const double mass = MassOf(table, std::to_string(price));
      EXPECT_NEAR(result.prices[price], expected.prices[price], 1e-14 * mass) << price;
    }
    EXPECT_NEAR(result.overflow, expected.overflow, 1e-12);
    EXPECT_NEAR(result.not_a_price, expected.not_a_price, 1e-12);
    EXPECT_EQ(result.pruned, 0);
    EXPECT_NEAR(Total(result), 1.0, 1e-12);
  }
}

TEST(PriceTreeTest, PruningTakesWholePricesBelowTheLimitAndCountsTheirMass) {
  for (const double prune : {1e-5, 1e-3, 0.02, 0.3}) {
    for (uint64_t seed = 0; seed < 10; ++seed) {
      const Table table = RandomTable(seed, 6);
      PriceTree tree(Digits(), prune);
      ASSERT_NO_FATAL_FAILURE(Evaluate(table, &tree));
      const PriceTree::Result all = BruteForce(table);
      const PriceTree::Result& result = tree.result();
      double numbers = 0;
      for (int digit = 0; digit < 10; ++digit) numbers += MassOf(table, std::to_string(digit));
      const double limit = prune * numbers;
      double pruned = 0;
      for (int price = 0; price < 1000; ++price) {
        const std::string digits = std::to_string(price);
        const bool parent_is_cut =
            digits.size() > 1 && MassOf(table, digits.substr(0, digits.size() - 1)) < limit;
        const bool is_cut = MassOf(table, digits) < limit;
        if (is_cut && !parent_is_cut) pruned += MassOf(table, digits);
        const double expected = is_cut ? 0.0 : all.prices[price];
        EXPECT_NEAR(result.prices[price], expected, 1e-15) << price << " " << prune;
        EXPECT_LT(all.prices[price] - result.prices[price], limit);
      }
      EXPECT_GT(pruned, 0);
      EXPECT_NEAR(result.pruned, pruned, 1e-12);
      EXPECT_NEAR(Total(result), 1.0, 1e-12);
      for (int depth = 1; depth <= 3; ++depth) EXPECT_LE(tree.Level(depth).size(), 1 / prune);
    }
  }
}

TEST(PriceTreeTest, BehindALeadingZeroThereIsNoPrice) {
  PriceTree tree(Digits());
  ASSERT_OK(tree.SetRoot(std::array{0.6, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0}));
  EXPECT_THAT(tree.Level(1), SizeIs(1));
  NextTokenProbabilities next = {.comma = 0.125};
  next.digits[0] = 0.25;
  next.digits[5] = 0.25;
  ASSERT_OK(tree.SetLevel(1, {next}));
  EXPECT_THAT(tree.Level(2), IsEmpty());
  const PriceTree::Result& result = tree.result();
  EXPECT_NEAR(result.prices[0], 0.6 * 0.375, 1e-15);
  EXPECT_NEAR(result.not_a_price, 0.4 + 0.6 * 0.5, 1e-15);
  EXPECT_NEAR(result.overflow, 0.6 * 0.125, 1e-15);
  EXPECT_EQ(result.prices[5], 0);
  EXPECT_EQ(result.pruned, 0);
}

TEST(PriceTreeTest, ACertainCommaIsOverflowAlone) {
  PriceTree tree(Digits());
  ASSERT_OK(tree.SetRoot(std::array{0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0}));
  ASSERT_THAT(tree.Level(1), SizeIs(1));
  EXPECT_EQ(tree.Level(1)[0].token, kFirstDigitId + 4);
  EXPECT_EQ(tree.Level(1)[0].prefix, 4);
  EXPECT_EQ(tree.Level(1)[0].parent, -1);
  ASSERT_OK(tree.SetLevel(1, {NextTokenProbabilities{.comma = 1.0}}));
  EXPECT_THAT(tree.Level(2), IsEmpty());
  ASSERT_OK(tree.SetLevel(2, {}));
  ASSERT_OK(tree.SetLevel(3, {}));
  EXPECT_EQ(tree.result().overflow, 1);
  EXPECT_EQ(tree.result().pruned, 0);
  EXPECT_EQ(tree.result().not_a_price, 0);
  EXPECT_THAT(tree.result().prices, Each(0.0));
}

TEST(PriceTreeTest, AFourthDigitIsOverflow) {
  PriceTree tree(Digits());
  NextTokenProbabilities nine;
  nine.digits[9] = 1.0;
  ASSERT_OK(tree.SetRoot(nine.digits));
  ASSERT_OK(tree.SetLevel(1, {nine}));
  ASSERT_OK(tree.SetLevel(2, {nine}));
  ASSERT_THAT(tree.Level(3), SizeIs(1));
  EXPECT_EQ(tree.Level(3)[0].prefix, 999);
  NextTokenProbabilities next = {.comma = 0.25};
  next.digits[0] = 0.5;
  ASSERT_OK(tree.SetLevel(3, {next}));
  EXPECT_EQ(tree.result().prices[999], 0.25);
  EXPECT_EQ(tree.result().overflow, 0.75);
}

// Probabilities of single precision may sum to a little more than 1.
TEST(PriceTreeTest, SumsAboveOneByRoundingEndNoNumberAndKeepTheirMass) {
  PriceTree tree(Digits());
  NextTokenProbabilities next = {.comma = 0.1};
  next.digits.fill(0.1 * (1 + 1e-6));
  ASSERT_OK(tree.SetRoot(next.digits));
  next.digits[9] = 1e-6;
  for (int depth = 1; depth <= 3; ++depth) {
    const size_t nodes = tree.Level(depth).size();
    ASSERT_OK(tree.SetLevel(depth, std::vector<NextTokenProbabilities>(nodes, next)));
  }
  EXPECT_THAT(tree.result().prices, Each(0.0));
  EXPECT_GT(tree.result().overflow, 0);
  // Of a digit behind "0" alone.
  EXPECT_NEAR(tree.result().not_a_price, 0.1 * 0.9, 1e-6);
  EXPECT_NEAR(Total(tree.result()), 1.0, 1e-12);
}

TEST(PriceTreeTest, WhatIsNoProbabilityIsNamedAndChangesNothing) {
  PriceTree tree(Digits());
  NextTokenProbabilities good = {.comma = 0.1};
  good.digits.fill(0.05);
  const std::vector<double> bad_values = {std::nan(""), std::numeric_limits<double>::infinity(),
                                          -1e-9};
  for (const double value : bad_values) {
    NextTokenProbabilities bad = good;
    bad.digits[3] = value;
    EXPECT_THAT(tree.SetRoot(bad.digits), StatusIs(kInvalid, AllOf(HasSubstr("behind the prompt"),
                                                                   HasSubstr("of the digit 3"))));
  }
  ASSERT_OK(tree.SetRoot(good.digits));
  std::vector<NextTokenProbabilities> next(10, good);
  for (const double value : bad_values) {
    next[7].comma = value;
    EXPECT_THAT(tree.SetLevel(1, next),
                StatusIs(kInvalid, AllOf(HasSubstr("behind the digits 7"), HasSubstr("comma"))));
  }
  next[7].comma = 0.502;
  EXPECT_THAT(tree.SetLevel(1, next), StatusIs(kInvalid, HasSubstr("at most 1")));
  next[7] = NextTokenProbabilities{};
  ASSERT_OK(tree.SetLevel(1, next));
  for (int depth = 2; depth <= 3; ++depth) {
    const size_t nodes = tree.Level(depth).size();
    ASSERT_OK(tree.SetLevel(depth, std::vector<NextTokenProbabilities>(nodes)));
  }
  EXPECT_NEAR(tree.result().prices[7], 0.05, 1e-15);
  EXPECT_NEAR(tree.result().prices[1], 0.05 * 0.4, 1e-15);
  EXPECT_NEAR(Total(tree.result()), 1.0, 1e-12);
}

TEST(PriceTreeDeathTest, CallsOutOfOrderEndTheProcess) {
  EXPECT_DEATH(PriceTree(PriceTokens{}), "check failed");
  EXPECT_DEATH(PriceTree(Digits(), -1.0), "check failed");
  PriceTree tree(Digits());
  EXPECT_DEATH((void)tree.result(), "check failed");
  EXPECT_DEATH((void)tree.Level(1), "check failed");
  ASSERT_OK(tree.SetRoot(std::array{0.5, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0}));
  EXPECT_DEATH((void)tree.result(), "check failed");
  EXPECT_DEATH((void)tree.Level(2), "check failed");
  EXPECT_DEATH((void)tree.SetLevel(1, {}), "check failed");
}

}  // namespace
}  // namespace pricer
