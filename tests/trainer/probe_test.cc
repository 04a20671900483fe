#include "trainer/probe.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/file.h"
#include "tests/testing/golden.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/tiny_model.h"

namespace pricer {
namespace {

using ::testing::AllOf;
using testing::GoldenJson;
using testing::GoldenPath;
using testing::GoldenTensors;
using ::testing::HasSubstr;
using testing::StatusIs;
using testing::TempDir;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

class ProbeTest : public ::testing::Test {
 protected:
  ProbeOptions Options(const std::string& base) const {
    ProbeOptions options;
    options.base = {.directory = base, .weights = "auto", .dtype = "fp32"};
    options.input = dir_.File("input.jsonl");
    options.output = dir_.File("output.jsonl");
    return options;
  }

  void WriteInput(const std::string& text) { ASSERT_OK(WriteFile(dir_.File("input.jsonl"), text)); }

  void WriteSequences(const nlohmann::json& golden) {
    std::string text;
    for (const auto& ids : golden.at("sequences")) {
      absl::StrAppend(&text, nlohmann::json{{"id", ids.size()}, {"tokens", ids}}.dump(), "\n");
    }
    WriteInput(text);
  }

  std::vector<nlohmann::json> ReadOutput() const {
    std::vector<nlohmann::json> lines;
    for (absl::string_view line :
         absl::StrSplit(*ReadFile(dir_.File("output.jsonl")), '\n', absl::SkipEmpty())) {
      lines.push_back(nlohmann::json::parse(line));
    }
    return lines;
  }

  TempDir dir_;
};

TEST_F(ProbeTest, PricesEqualTheReferencesEnumeration) {
  for (const std::string kind : {"digits", "whole"}) {
    const std::string folder = "token_prices/" + kind;
    std::string text;
    const nlohmann::json golden_json = GoldenJson(folder + "/golden.json");
    for (const auto& prompt : golden_json.at("prompts")) {
      absl::StrAppend(&text, nlohmann::json{{"id", "x"}, {"prompt", prompt}}.dump(), "\n");
    }
    WriteInput(text);
    ProbeOptions options = Options(GoldenPath(folder));
    options.prices = true;
    EXPECT_THAT(RunProbe(options), testing::IsOkAndHolds(4));
    const std::vector<nlohmann::json> lines = ReadOutput();
    const GoldenTensors golden(folder + "/golden.safetensors");
    for (size_t i = 0; i < lines.size(); ++i) {
      const auto prices = lines[i].at("prices").get<std::vector<double>>();
      double sum = lines[i].at("pruned").get<double>() + lines[i].at("overflow").get<double>() +
                   lines[i].at("not_a_price").get<double>();
      for (int n = 0; n < 1000; ++n) {
        EXPECT_NEAR(prices[n], golden.Get("probabilities")[i][n].item<double>(), 2e-5);
        sum += prices[n];
      }
      EXPECT_NEAR(sum, 1.0, 1e-9);
    }
  }
}

TEST_F(ProbeTest, PricesNeedPromptsAsText) {
  ProbeOptions options = Options(GoldenPath("token_prices/digits"));
  options.prices = true;
  WriteInput("{\"id\":1,\"tokens\":[5,6]}\n");
  EXPECT_THAT(RunProbe(options), StatusIs(kInvalid, HasSubstr("--prices needs a \"prompt\"")));
}

TEST_F(ProbeTest, LogProbabilitiesEqualTransformersWithoutATokenizer) {
  const nlohmann::json golden = GoldenJson("models/gqa/golden.json");
  WriteSequences(golden);
  ProbeOptions options = Options(GoldenPath("models/gqa"));
  options.top = 5;
  options.batch_tokens = 40;
  EXPECT_THAT(RunProbe(options), testing::IsOkAndHolds(5));
  const at::Tensor expected =
      GoldenTensors("models/gqa/golden.safetensors").Get("last_log_probabilities");
  const std::vector<nlohmann::json> lines = ReadOutput();
  ASSERT_EQ(lines.size(), 5u);
  for (size_t i = 0; i < lines.size(); ++i) {
    EXPECT_EQ(lines[i].at("id"), golden.at("sequences")[i].size());
    EXPECT_EQ(lines[i].size(), 3u);
    const auto [values, tokens] = expected[i].topk(5);
    ASSERT_EQ(lines[i].at("tokens").size(), 5u);
    for (int64_t k = 0; k < 5; ++k) {
      EXPECT_EQ(lines[i].at("tokens")[k], tokens[k].item<int64_t>());
      EXPECT_NEAR(lines[i].at("log_probabilities")[k].get<double>(), values[k].item<double>(),
                  1e-4);
    }
  }
}

TEST_F(ProbeTest, GivesEveryTokenOnceWhereTopIsLargerThanTheVocabulary) {
  WriteInput("{\"id\":\"a\",\"tokens\":[5,6]}\n");
  ProbeOptions options = Options(GoldenPath("models/gqa"));
  options.top = 1000000;
  ASSERT_OK(RunProbe(options));
  std::vector<int64_t> tokens = ReadOutput()[0].at("tokens");
  std::sort(tokens.begin(), tokens.end());
  ASSERT_EQ(tokens.size(), 256u);
  for (int64_t i = 0; i < 256; ++i) EXPECT_EQ(tokens[i], i);
}

TEST_F(ProbeTest, BinLogitsEqualPeftOfAPlainDirectory) {
  const nlohmann::json golden = GoldenJson("adapters/seqcls-qv/golden.json");
  WriteSequences(golden);
  ProbeOptions options = Options(GoldenPath(golden.at("base")));
  options.adapter = GoldenPath("adapters/seqcls-qv");
  ASSERT_OK(RunProbe(options));
  const at::Tensor expected =
      GoldenTensors("adapters/seqcls-qv/golden.safetensors").Get("bin_logits");
  const std::vector<nlohmann::json> lines = ReadOutput();
  ASSERT_EQ(lines.size(), static_cast<size_t>(expected.size(0)));
  for (size_t i = 0; i < lines.size(); ++i) {
    const std::vector<float> logits = lines[i].at("bin_logits");
    EXPECT_LE(testing::MaxAbsDifference(at::tensor(logits), expected[i]), 1e-4) << i;
    EXPECT_EQ(lines[i].size(), 2u);
  }
}

TEST_F(ProbeTest, ACausalAdapterGivesLogProbabilities) {
  const nlohmann::json golden = GoldenJson("adapters/causal-qv/golden.json");
  WriteSequences(golden);
  ProbeOptions options = Options(GoldenPath(golden.at("base")));
  options.adapter = GoldenPath("adapters/causal-qv");
  options.top = 1;
  ASSERT_OK(RunProbe(options));
  const at::Tensor expected =
      GoldenTensors("adapters/causal-qv/golden.safetensors").Get("last_logits").log_softmax(-1);
  const std::vector<nlohmann::json> lines = ReadOutput();
  for (size_t i = 0; i < lines.size(); ++i) {
    EXPECT_EQ(lines[i].at("tokens")[0], expected[i].argmax().item<int64_t>());
    EXPECT_NEAR(lines[i].at("log_probabilities")[0].get<double>(), expected[i].max().item<double>(),
                1e-4);
  }
}

TEST_F(ProbeTest, RefusesAPromptWithATokenThatTheModelDoesNotKnow) {
  ASSERT_OK(testing::WriteTinyCheckpoint(dir_.File("base"), {.vocabulary_size = 100}));
  WriteInput("{\"id\":1,\"prompt\":\"a\"}\n{\"id\":2,\"prompt\":\"b\"}\n");
  EXPECT_THAT(RunProbe(Options(dir_.File("base"))),
              StatusIs(kInvalid, AllOf(HasSubstr("input.jsonl:1"), HasSubstr("below 100"))));
}

TEST_F(ProbeTest, TokenizesPromptsAsTheCheckpointDoesAndKeepsIds) {
  ASSERT_OK(testing::WriteTinyCheckpoint(dir_.File("base")));
  // Byte b is token b + 3, so both lines are the same prompt.
  WriteInput("{\"id\":7,\"prompt\":\"AB\"}\n\n{\"id\":\"x\",\"tokens\":[68,69]}\n");
  ASSERT_OK(RunProbe(Options(dir_.File("base"))));
  const std::vector<nlohmann::json> lines = ReadOutput();
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0].at("id"), 7);
  EXPECT_EQ(lines[1].at("id"), "x");
  EXPECT_EQ(lines[0].at("tokens"), lines[1].at("tokens"));
  EXPECT_EQ(lines[0].at("tokens").size(), 20u);
}

TEST_F(ProbeTest, NamesFileAndLineOfABadLine) {
  ASSERT_OK(testing::WriteTinyCheckpoint(dir_.File("base"), {.tokenizer = false}));
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"[1]", "not a JSON object"},
      {"{\"id\":1,", "not a JSON object"},
      {"{\"tokens\":[5]}", "\"id\""},
      {"{\"id\":null,\"tokens\":[5]}", "\"id\""},
      {"{\"id\":1}", "either \"prompt\" or \"tokens\""},
      {"{\"id\":1,\"tokens\":[5],\"prompt\":\"x\"}", "either \"prompt\" or \"tokens\""},
      {"{\"id\":1,\"tokens\":[]}", "0 tokens"},
      {"{\"id\":1,\"tokens\":[5,260]}", "has 260; expected ids from 0 to 259"},
      {"{\"id\":1,\"tokens\":[5,-1]}", "has -1"},
      {"{\"id\":1,\"tokens\":[5,1.5]}", "has 1.5"},
      {"{\"id\":1,\"prompt\":5}", "\"prompt\" is no string"},
      {"{\"id\":1,\"prompt\":\"x\"}", "tokenizer.json"}};
  for (const auto& [line, reason] : cases) {
    WriteInput("{\"id\":0,\"tokens\":[5]}\n" + line + "\n");
    EXPECT_THAT(RunProbe(Options(dir_.File("base"))),
                StatusIs(kInvalid, AllOf(HasSubstr("input.jsonl:2: "), HasSubstr(reason))))
        << line;
    EXPECT_THAT(ReadFile(dir_.File("output.jsonl")), StatusIs(absl::StatusCode::kNotFound));
  }
  WriteInput("\n");
  EXPECT_THAT(RunProbe(Options(dir_.File("base"))), StatusIs(kInvalid, HasSubstr("no line")));
}

TEST_F(ProbeTest, ChecksOptionsFirst) {
  ProbeOptions options = Options(dir_.File("no-base"));
  EXPECT_THAT(RunProbe(options), StatusIs(kInvalid, HasSubstr("--base")));
  options = Options(dir_.path());
  EXPECT_THAT(RunProbe(options), StatusIs(kInvalid, HasSubstr("--input")));
  WriteInput("x");
  options.output = options.input;
  EXPECT_THAT(RunProbe(options),
              StatusIs(kInvalid, AllOf(HasSubstr("--output"), HasSubstr("is also --input"))));
  options.output = dir_.File("output.jsonl");
  options.top = 0;
  EXPECT_THAT(RunProbe(options), StatusIs(kInvalid, HasSubstr("--top is 0")));
}

}  // namespace
}  // namespace pricer
