#include "trainer/token_cache.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <vector>

#include "base/file.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace pricer {
namespace {

using ::testing::HasSubstr;
using testing::StatusIs;
using testing::TempDir;

Dataset Example3() {
  Dataset dataset;
  dataset.examples = {{.ids = {5, 6, 7}, .price = 12.5},
                      {.ids = {8}, .price = 1e-3, .completion_tokens = 1},
                      {.ids = {9, 10}, .price = 999}};
  dataset.item_ids = {"a", "", "caf\u00e9"};
  dataset.file_rows = {1, 2, 5};
  dataset.summary = {.rows = 5, .rejects = 2};
  dataset.truncated = 1;
  dataset.foreign_prompts = 3;
  return dataset;
}

class TokenCacheTest : public ::testing::Test {
 protected:
  TempDir dir_;
  TokenCache cache_{dir_.File("cache")};
};

TEST_F(TokenCacheTest, GivesBackWhatWasSavedAndItsRejects) {
  const std::string rejects = "{\"row\": 3}\n{\"row\": 4}\n";
  ASSERT_OK(WriteFile(dir_.File("rejects"), rejects));
  ASSERT_OK(cache_.Save("key", Example3(), dir_.File("rejects")));
  ASSERT_OK_AND_ASSIGN(const std::optional<Dataset> read,
                       cache_.Load("key", dir_.File("rejects-again")));
  ASSERT_TRUE(read.has_value());
  const Dataset expected = Example3();
  ASSERT_EQ(read->examples.size(), expected.examples.size());
  for (size_t i = 0; i < expected.examples.size(); ++i) {
    EXPECT_EQ(read->examples[i].ids, expected.examples[i].ids);
    EXPECT_EQ(read->examples[i].price, expected.examples[i].price);
    EXPECT_EQ(read->examples[i].completion_tokens, expected.examples[i].completion_tokens);
  }
  EXPECT_EQ(read->item_ids, expected.item_ids);
  EXPECT_EQ(read->file_rows, expected.file_rows);
  EXPECT_EQ(read->summary.rows, 5);
  EXPECT_EQ(read->summary.rejects, 2);
  EXPECT_EQ(read->truncated, 1);
  EXPECT_EQ(read->foreign_prompts, 3);
  EXPECT_EQ(*ReadFile(dir_.File("rejects-again")), rejects);
}

TEST_F(TokenCacheTest, HasNothingUnderAnotherKeyAndWritesNoRejectsWhereThereWereNone) {
  ASSERT_OK(cache_.Save("key", Example3(), dir_.File("no-rejects")));
  ASSERT_OK_AND_ASSIGN(const auto other, cache_.Load("other", dir_.File("rejects")));
  EXPECT_FALSE(other.has_value());
  ASSERT_OK_AND_ASSIGN(const auto read, cache_.Load("key", dir_.File("rejects")));
  EXPECT_TRUE(read.has_value());
  EXPECT_FALSE(std::filesystem::exists(dir_.File("rejects")));
}

TEST_F(TokenCacheTest, ABrokenFileIsNamed) {
  ASSERT_OK(cache_.Save("key", Example3(), ""));
  const std::string path = dir_.File("cache/key.safetensors");
  const std::string whole = *ReadFile(path);
  ASSERT_OK(WriteFile(path, whole.substr(0, whole.size() - 9)));
  EXPECT_THAT(cache_.Load("key", ""), StatusIs(absl::StatusCode::kDataLoss, HasSubstr(path)));
  Dataset one = Example3();
  one.file_rows = {1};
  ASSERT_OK(cache_.Save("key", one, ""));
  EXPECT_THAT(cache_.Load("key", ""),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("as many rows in every tensor")));
}

TEST_F(TokenCacheTest, TheKeyFollowsFromAllThatDecidesTheTokens) {
  ASSERT_OK(WriteFile(dir_.File("tokenizer.json"), "{}"));
  PromptTemplate prompt;
  prompt.question = "Q?";
  prompt.prefix = "P";
  DatasetOptions options;
  const auto key = [&] {
    return *TokenCacheKey("items.jsonl", "digest", dir_.path(), prompt, options);
  };
  std::vector<std::string> keys = {key()};
  EXPECT_EQ(key(), keys[0]);
  prompt.prefix = "P ";
  keys.push_back(key());
  prompt.max_prompt_tokens = 7;
  keys.push_back(key());
  options.reader.columns = {{"price", "cost"}};
  keys.push_back(key());
  options.completion = CompletionFormat{};
  keys.push_back(key());
  options.completion->suffix = ".00";
  keys.push_back(key());
  options.completion->end_token = 2;
  keys.push_back(key());
  ASSERT_OK(WriteFile(dir_.File("tokenizer.json"), "{ }"));
  keys.push_back(key());
  std::sort(keys.begin(), keys.end());
  EXPECT_EQ(std::unique(keys.begin(), keys.end()), keys.end());
}

}  // namespace
}  // namespace pricer
