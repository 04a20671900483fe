#include "trainer/inspection.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/tiny_model.h"
#include "trainer/inspection_report.h"

namespace pricer {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::StatusIs;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

class InspectionTest : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_OK(testing::WriteTinyCheckpoint(dir_.File("base"))); }

  InspectionOptions Options() const {
    InspectionOptions options;
    options.base = {.directory = dir_.File("base"), .weights = "auto", .dtype = "fp32"};
    options.prompt.max_prompt_tokens = 120;
    return options;
  }

  // 20 training items, and `leaks` of 10 validation items out of them.
  InspectionOptions DataOptions(int leaks) const {
    std::string train, validation;
    for (int i = 0; i < 20; ++i) {
      absl::StrAppend(&train, "{\"title\":\"item ", i, "\",\"price\":5}\n");
    }
    for (int i = 0; i < 10; ++i) {
      absl::StrAppend(&validation, "{\"title\":\"", i < leaks ? "item " : "other ", i,
                      "\",\"price\":5}\n");
    }
    EXPECT_OK(WriteFile(dir_.File("train.jsonl"), train));
    EXPECT_OK(WriteFile(dir_.File("validation.jsonl"), validation));
    InspectionOptions options = Options();
    options.data = dir_.File("train.jsonl");
    options.validation = dir_.File("validation.jsonl");
    return options;
  }

  Inspection Run(const InspectionOptions& options) const {
    auto inspection = RunInspection(options);
    EXPECT_OK(inspection);
    return *std::move(inspection);
  }

  testing::TempDir dir_;
};

TEST_F(InspectionTest, TextAndJsonSayWhatTheBaseIs) {
  InspectionOptions options = Options();
  options.memory_budget_bytes = int64_t{1} << 30;
  options.tokens = {256};
  const Inspection inspection = Run(options);
  EXPECT_THAT(inspection.warnings, IsEmpty());
  EXPECT_THAT(InspectionText(inspection),
              AllOf(HasSubstr("2 layers, hidden size 64"), HasSubstr("token head     digits"),
                    HasSubstr("licence        none found"), HasSubstr("--micro-batch-tokens")));
  const nlohmann::json json = nlohmann::json::parse(InspectionJson(inspection));
  EXPECT_EQ(json.at("base").at("name"), "base");
  EXPECT_EQ(json.at("base").at("parameters").at("total"), inspection.config.ParameterCount());
  EXPECT_EQ(json.at("tokenizer").at("token_head"), "digits");
  EXPECT_EQ(json.at("memory").at("of").at("weights"), "nf4");
  EXPECT_EQ(json.at("memory").at("batches")[0].at("tokens"), 256);
  EXPECT_GT(json.at("memory").at("budget").at("tuning_tokens"), 256);
  EXPECT_TRUE(json.at("data").is_null());
}

TEST_F(InspectionTest, PlansForAGpuThatNeedNotBeHere) {
  InspectionOptions options = Options();
  options.base.device = "cuda";
  options.base.dtype = "auto";
  const Inspection in_nf4 = Run(options);
  EXPECT_GT(in_nf4.memory.weights.window, 0);
  EXPECT_GT(in_nf4.memory.workspace_bytes, 0);
  EXPECT_EQ(in_nf4.memory.tuned.best, 0);
  EXPECT_THAT(InspectionText(in_nf4), AllOf(HasSubstr("memory of a GPU"), HasSubstr("NF4"),
                                            HasSubstr("two layers at a time")));
  // Decoded weights fit half of a large budget.
  options.memory_budget_bytes = int64_t{1} << 30;
  const Inspection decoded = Run(options);
  EXPECT_EQ(decoded.memory.weights.window, 0);
  EXPECT_GT(decoded.memory.weights.linears, in_nf4.memory.weights.linears);
  const auto json = nlohmann::json::parse(InspectionJson(decoded));
  EXPECT_EQ(json.at("memory").at("of").at("device"), "cuda");
  EXPECT_EQ(json.at("memory").at("of").at("resident"), "bf16");
  EXPECT_EQ(json.at("memory").at("budget").at("usable"), int64_t{1} << 30);
  options.base.resident = "nf4";
  EXPECT_GT(Run(options).memory.weights.window, 0);
  options.base.dtype = "fp32";
  EXPECT_THAT(RunInspection(options), StatusIs(kInvalid, HasSubstr("a GPU computes in bf16")));
}

TEST_F(InspectionTest, SaysWhatWouldFitIntoASmallBudget) {
  InspectionOptions options = Options();
  options.memory_budget_bytes = 1000;
  const std::string text = InspectionText(Run(options));
  EXPECT_THAT(text, AllOf(HasSubstr("tuning         does not fit: one prompt needs"),
                          HasSubstr("instead        --dtype bf16"), HasSubstr("too much as well")));
}

TEST_F(InspectionTest, PromptsOfThePlanAreThoseOfTheData) {
  const Inspection without = Run(Options());
  EXPECT_EQ(without.memory_request.prompts.tokens, 120);
  const Inspection with = Run(DataOptions(0));
  EXPECT_EQ(with.memory_request.prompts.tokens,
            static_cast<int64_t>(with.data->data.tokens.median));
  InspectionOptions options = DataOptions(0);
  options.prompt_tokens = 33;
  EXPECT_EQ(Run(options).memory_request.prompts.tokens, 33);
}

TEST_F(InspectionTest, TheTokenHeadHasTheTokensOfAPriceAsAnswers) {
  InspectionOptions options = Options();
  options.head = "token";
  const Inspection inspection = Run(options);
  // "149.99" and the end.
  EXPECT_EQ(inspection.memory_request.prompts.answers, 7);
  EXPECT_EQ(inspection.memory_request.bins, 0);
}

TEST_F(InspectionTest, ALeakIsWarnedOfAndFailsBeyondWhatIsAllowed) {
  EXPECT_THAT(Run(DataOptions(0)).warnings, IsEmpty());
  InspectionOptions options = DataOptions(1);
  Inspection inspection = Run(options);
  EXPECT_EQ(inspection.data->leak_share(), 0.1);
  EXPECT_THAT(inspection.warnings, ElementsAre(HasSubstr("10.00 % of the rows")));
  EXPECT_EQ(inspection.failures, 0);
  EXPECT_THAT(InspectionText(inspection), HasSubstr("warning: 10.00 %"));
  inspection = Run(DataOptions(2));
  EXPECT_EQ(inspection.failures, 1);
  EXPECT_THAT(InspectionText(inspection),
              AllOf(HasSubstr("error: 20.00 %"), HasSubstr("--max-leak allows 10.00 %")));
  const nlohmann::json json = nlohmann::json::parse(InspectionJson(inspection));
  EXPECT_EQ(json.at("data").at("duplicates").at("leak").at("equal"), 2);
  EXPECT_EQ(json.at("failures"), 1);
  options = DataOptions(2);
  options.max_leak = 0.2;
  EXPECT_EQ(Run(options).failures, 0);
}

TEST_F(InspectionTest, WarnsOfMoreRejectsThanTuningTakes) {
  InspectionOptions options = DataOptions(0);
  ASSERT_OK_AND_ASSIGN(std::string train, ReadFile(options.data));
  ASSERT_OK(WriteFile(options.data, train + "{\"title\":\"no price\"}\n"));
  const Inspection inspection = Run(options);
  EXPECT_THAT(inspection.warnings, ElementsAre(HasSubstr("4.76 % of the rows are rejected")));
  EXPECT_THAT(InspectionText(inspection), HasSubstr("row 21: price: "));
}

TEST_F(InspectionTest, WarnsWhereTheTokenizerCannotServe) {
  ASSERT_OK(testing::WriteTinyCheckpoint(dir_.File("small"), {.vocabulary_size = 100}));
  InspectionOptions options = Options();
  options.base.directory = dir_.File("small");
  EXPECT_THAT(Run(options).warnings, ElementsAre(HasSubstr("no prompt can be made"),
                                                 HasSubstr("the tokenizer has 259 tokens")));
  ASSERT_OK(testing::WriteTinyCheckpoint(dir_.File("bare"), {.tokenizer = false}));
  options.base.directory = dir_.File("bare");
  const Inspection inspection = Run(options);
  EXPECT_THAT(inspection.warnings, ElementsAre(HasSubstr("no tokenizer.json")));
  EXPECT_TRUE(nlohmann::json::parse(InspectionJson(inspection)).at("tokenizer").is_null());
}

TEST_F(InspectionTest, ChecksOptionsFirst) {
  const auto expect = [&](void (*change)(InspectionOptions*), const std::string& part) {
    InspectionOptions options = DataOptions(0);
    change(&options);
    EXPECT_THAT(RunInspection(options), StatusIs(kInvalid, HasSubstr(part))) << part;
  };
  expect([](InspectionOptions* o) { o->base.directory += "/none"; }, "--base");
  expect([](InspectionOptions* o) { o->data += ".none"; }, "--data");
  expect([](InspectionOptions* o) { o->validation += ".none"; }, "--validation");
  expect([](InspectionOptions* o) { o->data = ""; }, "--validation needs --data");
  expect([](InspectionOptions* o) { o->json = o->data; }, "--json");
  expect([](InspectionOptions* o) { o->head = "value"; }, "--head is value");
  expect([](InspectionOptions* o) { o->tokens = {0}; }, "--tokens is 0");
  expect([](InspectionOptions* o) { o->tokens = {}; }, "--tokens is empty");
  expect([](InspectionOptions* o) { o->lora_rank = 0; }, "--lora-r is 0");
  expect([](InspectionOptions* o) { o->max_leak = 1.5; }, "--max-leak is 1.5");
  expect([](InspectionOptions* o) { o->memory_budget_bytes = 0; }, "--memory-budget is 0");
  expect([](InspectionOptions* o) { o->target_modules = {"c_attn"}; }, "c_attn");
  expect([](InspectionOptions* o) { o->prompt.max_prompt_tokens = 4000; }, "--max-prompt-tokens");
}

}  // namespace
}  // namespace pricer
