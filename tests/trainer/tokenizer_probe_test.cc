#include "trainer/tokenizer_probe.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/tiny_model.h"

namespace pricer {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;
using Merges = std::vector<std::pair<std::string, std::string>>;

// A byte for each token, and what `merges` make.
class TokenizerProbeTest : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_OK(testing::WriteTinyCheckpoint(dir_.File("base"))); }

  nlohmann::json ReadTokenizer() const {
    return nlohmann::json::parse(*ReadFile(dir_.File("base/tokenizer.json")));
  }
  void WriteTokenizer(const nlohmann::json& json) const {
    ASSERT_OK(WriteFile(dir_.File("base/tokenizer.json"), json.dump()));
  }

  void AddMerges(const Merges& merges) const {
    nlohmann::json json = ReadTokenizer();
    nlohmann::json& vocabulary = json.at("model").at("vocab");
    for (const auto& [left, right] : merges) {
      if (!vocabulary.contains(left + right)) vocabulary[left + right] = vocabulary.size();
      json.at("model").at("merges").push_back({left, right});
    }
    WriteTokenizer(json);
  }

  TokenizerProbe Probe() const {
    const auto tokenizer = Tokenizer::FromDirectory(dir_.File("base"));
    EXPECT_OK(tokenizer);
    const auto config = ModelConfig::FromFile(dir_.File("base/config.json"));
    EXPECT_OK(config);
    auto probe = ProbeTokenizer(**tokenizer, *config, *PromptTemplate::Preset("default", "USD"));
    EXPECT_OK(probe);
    return *std::move(probe);
  }

  testing::TempDir dir_;
};

TEST_F(TokenizerProbeTest, ATokenForEachDigitSupportsReadingDigits) {
  const TokenizerProbe probe = Probe();
  EXPECT_EQ(probe.price_tokens, PriceTokenKind::kDigits);
  EXPECT_EQ(probe.reason, "");
  ASSERT_EQ(probe.tokens_by_digits.size(), 4u);
  EXPECT_THAT(probe.tokens_by_digits[0], UnorderedElementsAre(Pair(1, 10)));
  EXPECT_THAT(probe.tokens_by_digits[3], UnorderedElementsAre(Pair(4, 9000)));
  EXPECT_THAT(probe.decimal, ElementsAre("1", "4", "9", ".", "9", "9"));
  EXPECT_EQ(probe.joined, 0);
  EXPECT_EQ(probe.vocabulary_size, 259);
}

TEST_F(TokenizerProbeTest, ATokenForEachNumberBelow1000SupportsReadingWholePrices) {
  Merges merges;
  for (int number = 10; number < 1000; ++number) {
    const std::string text = absl::StrCat(number);
    merges.emplace_back(text.substr(0, text.size() - 1), text.substr(text.size() - 1));
    if (text.size() == 3 && text[1] != '0') merges.emplace_back(text.substr(0, 1), text.substr(1));
  }
  AddMerges(merges);
  const TokenizerProbe probe = Probe();
  EXPECT_EQ(probe.price_tokens, PriceTokenKind::kWhole);
  EXPECT_EQ(probe.reason, "");
  EXPECT_THAT(probe.tokens_by_digits[2], UnorderedElementsAre(Pair(1, 900)));
  EXPECT_EQ(probe.tokens_by_digits[3].count(1), 0u);
}

TEST_F(TokenizerProbeTest, NamesTheFirstNumbersThatSpeakAgainstATokenHead) {
  AddMerges({{"4", "2"}});
  const TokenizerProbe probe = Probe();
  EXPECT_EQ(probe.price_tokens, PriceTokenKind::kUnsupported);
  EXPECT_EQ(probe.reason, "not whole: 10 is \"1\" \"0\"; not digit by digit: 42 is \"42\"");
  EXPECT_THAT(probe.tokens_by_digits[1], UnorderedElementsAre(Pair(1, 1), Pair(2, 89)));
}

TEST_F(TokenizerProbeTest, NumbersThatJoinThePrefixAreNotSupported) {
  AddMerges({{"$", "7"}});
  const TokenizerProbe probe = Probe();
  EXPECT_EQ(probe.price_tokens, PriceTokenKind::kUnsupported);
  EXPECT_THAT(probe.reason, HasSubstr("7 joins the prompt's prefix"));
  EXPECT_EQ(probe.joined, 1 + 10 + 100 + 1000);
}

TEST_F(TokenizerProbeTest, SaysWhatIsAddedAroundATextAndWhetherThatIsTheBeginToken) {
  TokenizerProbe probe = Probe();
  EXPECT_THAT(probe.leading_special, IsEmpty());
  EXPECT_EQ(probe.bos, "<bos>");
  EXPECT_FALSE(probe.adds_bos);

  nlohmann::json json = ReadTokenizer();
  const auto special = [](const char* token) {
    return nlohmann::json{{"SpecialToken", {{"id", token}, {"type_id", 0}}}};
  };
  const nlohmann::json text = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  json["post_processor"] = {{"type", "TemplateProcessing"},
                            {"single", {special("<bos>"), text, special("<eos>")}},
                            {"pair", {text}},
                            {"special_tokens",
                             {{"<bos>", {{"id", "<bos>"}, {"ids", {1}}, {"tokens", {"<bos>"}}}},
                              {"<eos>", {{"id", "<eos>"}, {"ids", {2}}, {"tokens", {"<eos>"}}}}}}};
  WriteTokenizer(json);
  probe = Probe();
  EXPECT_THAT(probe.leading_special, ElementsAre("<bos>"));
  EXPECT_THAT(probe.trailing_special, ElementsAre("<eos>"));
  EXPECT_TRUE(probe.adds_bos);
  EXPECT_EQ(probe.price_tokens, PriceTokenKind::kDigits);
}

}  // namespace
}  // namespace pricer
