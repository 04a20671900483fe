#include "trainer/dataset.h"

#include <gmock/gmock.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/tiny_model.h"

namespace pricer {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::StatusIs;
using testing::TempDir;

class DatasetTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK(testing::WriteTinyCheckpoint(dir_.File("base")));
    ASSERT_OK_AND_ASSIGN(tokenizer_, Tokenizer::FromDirectory(dir_.File("base")));
    prompt_.question = "Q?";
    prompt_.prefix = "P: ";
  }

  std::string Write(const std::string& text) {
    EXPECT_OK(WriteFile(dir_.File("items.jsonl"), text));
    return dir_.File("items.jsonl");
  }

  TempDir dir_;
  std::unique_ptr<Tokenizer> tokenizer_;
  PromptTemplate prompt_;
};

TEST_F(DatasetTest, HoldsIdsAndPricesInTheOrderOfTheFile) {
  const std::string path = Write(
      "{\"id\":\"a\",\"title\":\"Cup\",\"price\":3.5}\n{\"id\":\"b\",\"title\":\"Jug\",\"price\":7}"
      "\n");
  ASSERT_OK_AND_ASSIGN(const Dataset dataset, LoadDataset(path, prompt_, *tokenizer_, {}));
  EXPECT_THAT(dataset.Prices(), ::testing::ElementsAre(3.5, 7.0));
  ASSERT_OK_AND_ASSIGN(const EncodedPrompt expected, EncodePrompt(prompt_, *tokenizer_, "Cup"));
  EXPECT_EQ(dataset.examples[0].ids, expected.ids);
  EXPECT_EQ(dataset.Lengths()[0], static_cast<int64_t>(expected.ids.size()));
  EXPECT_TRUE(dataset.texts.empty());
}

TEST_F(DatasetTest, KeepsTextsWhereAskedAndStopsAtTheLimit) {
  const std::string path = Write(
      "{\"id\":\"a\",\"title\":\"Cup\",\"price\":3}\n{\"title\":\"Jug\",\"price\":7}\n"
      "{\"title\":\"Pan\",\"price\":9}\n");
  DatasetOptions options;
  options.limit = 2;
  options.keep_texts = true;
  ASSERT_OK_AND_ASSIGN(const Dataset dataset, LoadDataset(path, prompt_, *tokenizer_, options));
  EXPECT_THAT(dataset.texts, ::testing::ElementsAre("Cup", "Jug"));
  EXPECT_THAT(dataset.item_ids, ::testing::ElementsAre("a", "2"));
}

TEST_F(DatasetTest, CountsRejectsAndTruncatedTexts) {
  const std::string path = Write("{\"title\":\"" + std::string(100, 'x') +
                                 "\",\"price\":3}\n{\"title\":\"Jug\",\"price\":-1}\n");
  prompt_.max_prompt_tokens = 40;
  DatasetOptions options;
  options.reader.max_reject_share = 0.5;
  options.reader.rejects_path = dir_.File("rejects.jsonl");
  ASSERT_OK_AND_ASSIGN(const Dataset dataset, LoadDataset(path, prompt_, *tokenizer_, options));
  EXPECT_EQ(dataset.truncated, 1);
  EXPECT_EQ(dataset.summary.rejects, 1);
  EXPECT_EQ(dataset.examples[0].ids.size(), 40u);
  EXPECT_EQ(DescribeDataset(dataset), "1 items, 40 tokens, 1 truncated, 1 rejected");
  EXPECT_THAT(ReadFile(dir_.File("rejects.jsonl")), testing::IsOkAndHolds(HasSubstr("\"row\": 2")));
}

TEST_F(DatasetTest, RefusesAFileWithoutItems) {
  const std::string path = Write("\n");
  EXPECT_THAT(LoadDataset(path, prompt_, *tokenizer_, {}),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr(path)));
}

TEST_F(DatasetTest, RejectsARowThatSpellsOutTheBeginningToken) {
  ASSERT_OK_AND_ASSIGN(const std::string plain, ReadFile(dir_.File("base/tokenizer.json")));
  nlohmann::json json = nlohmann::json::parse(plain);
  json["post_processor"] = nlohmann::json::parse(R"({"type": "TemplateProcessing",
      "single": [{"SpecialToken": {"id": "<bos>", "type_id": 0}},
                 {"Sequence": {"id": "A", "type_id": 0}}],
      "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
      "special_tokens": {"<bos>": {"id": "<bos>", "ids": [1], "tokens": ["<bos>"]}}})");
  ASSERT_OK(WriteFile(dir_.File("base/tokenizer.json"), json.dump()));
  ASSERT_OK_AND_ASSIGN(tokenizer_, Tokenizer::FromDirectory(dir_.File("base")));
  const std::string path =
      Write("{\"title\":\"Cup\",\"price\":3}\n{\"title\":\"Llama mug <bos>\",\"price\":7}\n");
  DatasetOptions options;
  options.reader.max_reject_share = 0.5;
  options.reader.rejects_path = dir_.File("rejects.jsonl");
  ASSERT_OK_AND_ASSIGN(const Dataset dataset, LoadDataset(path, prompt_, *tokenizer_, options));
  EXPECT_THAT(dataset.Prices(), ::testing::ElementsAre(3.0));
  EXPECT_EQ(dataset.summary.rejects, 1);
  EXPECT_THAT(ReadFile(options.reader.rejects_path),
              testing::IsOkAndHolds(AllOf(HasSubstr("\"row\": 2"), HasSubstr("spells it out"))));
  options.reader.max_reject_share = 0.1;
  EXPECT_THAT(LoadDataset(path, prompt_, *tokenizer_, options),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("1 of 2 rows")));
}

TEST_F(DatasetTest, JudgesTheRejectsWhereALimitEndsTheReading) {
  std::string items;
  for (int i = 0; i < 3; ++i) items += "{\"title\":\"Cup\",\"price\":-1}\n";
  for (int i = 0; i < 9; ++i) items += "{\"title\":\"Cup\",\"price\":3}\n";
  const std::string path = Write(items);
  DatasetOptions options;
  options.limit = 4;
  EXPECT_THAT(LoadDataset(path, prompt_, *tokenizer_, options),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("3 of 7 rows")));
}

TEST_F(DatasetTest, ChecksQuestionAndPrefixBeforeAnyRow) {
  prompt_.max_prompt_tokens = 3;
  EXPECT_THAT(LoadDataset(Write("{\"title\":\"Cup\",\"price\":-3}\n"), prompt_, *tokenizer_, {}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("question and prefix alone")));
}

// Ids of a text, a token for each byte.
std::vector<int32_t> Bytes(absl::string_view text) {
  std::vector<int32_t> ids;
  for (const char c : text) ids.push_back(3 + c);
  return ids;
}

TEST_F(DatasetTest, CompletionsFollowThePromptsOfItems) {
  const std::string path = Write("{\"title\":\"Cup\",\"price\":3.6}\n");
  DatasetOptions options;
  options.completion = CompletionFormat{.suffix = ".00", .end_token = 2};
  ASSERT_OK_AND_ASSIGN(const Dataset dataset, LoadDataset(path, prompt_, *tokenizer_, options));
  std::vector<int32_t> expected = Bytes("Q?\n\nCup\n\nP: 4.00");
  expected.push_back(2);
  EXPECT_EQ(dataset.examples[0].ids, expected);
  EXPECT_EQ(dataset.examples[0].completion_tokens, 5);
}

TEST_F(DatasetTest, APairOfTheRunsTemplateIsAnItemWithItsOwnCompletion) {
  const std::string path = Write(
      "{\"prompt\":\"Q?\\n\\nCup\\n\\nP: \",\"completion\":\"12.50\"}\n"
      "{\"prompt\":\"Q?\\n\\nJug\\n\\nP: \",\"completion\":\"about 7\",\"price\":8}\n");
  DatasetOptions options;
  options.reader.pairs = true;
  options.keep_texts = true;
  options.completion = CompletionFormat{.suffix = ".00", .end_token = std::nullopt};
  ASSERT_OK_AND_ASSIGN(const Dataset dataset, LoadDataset(path, prompt_, *tokenizer_, options));
  EXPECT_THAT(dataset.texts, ::testing::ElementsAre("Cup", "Jug"));
  EXPECT_THAT(dataset.Prices(), ::testing::ElementsAre(12.5, 8.0));
  EXPECT_EQ(dataset.examples[0].ids, Bytes("Q?\n\nCup\n\nP: 12.50"));
  EXPECT_EQ(dataset.examples[1].completion_tokens, 7);
  EXPECT_EQ(dataset.foreign_prompts, 0);
}

TEST_F(DatasetTest, APairOfAnotherTemplateIsTakenAsItIs) {
  const std::string path = Write(
      "{\"prompt\":\"How much is a cup? $\",\"completion\":\"12\"}\n"
      "{\"prompt\":\"How much is a jug? $\",\"completion\":\"much\"}\n");
  DatasetOptions options;
  options.reader.pairs = true;
  options.reader.max_reject_share = 0.5;
  options.completion = CompletionFormat{};
  ASSERT_OK_AND_ASSIGN(const Dataset dataset, LoadDataset(path, prompt_, *tokenizer_, options));
  ASSERT_EQ(dataset.examples.size(), 1u);
  EXPECT_EQ(dataset.examples[0].ids, Bytes("How much is a cup? $12"));
  EXPECT_EQ(dataset.examples[0].completion_tokens, 2);
  EXPECT_EQ(dataset.examples[0].price, 12);
  EXPECT_EQ(dataset.foreign_prompts, 1);
  EXPECT_EQ(dataset.summary.rejects, 1);  // no price in "much"
  // Where texts are needed, as golden items are, it cannot be used.
  options.keep_texts = true;
  options.reader.max_reject_share = 1;
  EXPECT_THAT(LoadDataset(path, prompt_, *tokenizer_, options),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("no item")));
}

TEST_F(DatasetTest, APromptOfAnotherTemplateIsNotCut) {
  const std::string path = Write("{\"prompt\":\"How much is a cup? $\",\"completion\":\"12\"}\n");
  prompt_.max_prompt_tokens = 19;
  DatasetOptions options;
  options.reader.pairs = true;
  options.reader.rejects_path = dir_.File("rejects.jsonl");
  options.completion = CompletionFormat{};
  EXPECT_FALSE(LoadDataset(path, prompt_, *tokenizer_, options).ok());
  EXPECT_THAT(*ReadFile(dir_.File("rejects.jsonl")),
              HasSubstr("the prompt has 20 tokens, at most 19 are taken"));
}

}  // namespace
}  // namespace pricer
