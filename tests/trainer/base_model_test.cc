#include "trainer/base_model.h"

#include <gmock/gmock.h>

#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/tiny_model.h"

namespace pricer {
namespace {

using ::testing::HasSubstr;
using testing::StatusIs;
using testing::TempDir;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

TEST(BaseOptionsTest, NamesTheOptionThatIsWrong) {
  TempDir dir;
  BaseOptions options{.directory = dir.path(), .weights = "nf4"};
  EXPECT_OK(options.Validate());
  EXPECT_THAT((BaseOptions{.directory = dir.File("none"), .weights = "nf4"}).Validate(),
              StatusIs(kInvalid, HasSubstr("--base")));
  options.weights = "int3";
  EXPECT_THAT(options.Validate(), StatusIs(kInvalid, HasSubstr("--weights is int3")));
  options.weights = "auto";
  options.dtype = "fp64";
  EXPECT_THAT(options.Validate(), StatusIs(kInvalid, HasSubstr("--dtype is fp64")));
  options.dtype = "auto";
  options.threads = -1;
  EXPECT_THAT(options.Validate(), StatusIs(kInvalid, HasSubstr("--threads is -1")));
}

TEST(OpenBaseTest, NeedsATokenizerOnlyWhereAsked) {
  TempDir dir;
  ASSERT_OK(testing::WriteTinyCheckpoint(dir.File("base"), {.tokenizer = false}));
  const BaseOptions options{.directory = dir.File("base"), .weights = "auto"};
  ASSERT_OK_AND_ASSIGN(const BaseModel base, OpenBase(options, /*needs_tokenizer=*/false));
  EXPECT_EQ(base.tokenizer, nullptr);
  EXPECT_EQ(base.name, "base");
  EXPECT_THAT(OpenBase(options, /*needs_tokenizer=*/true),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("tokenizer.json")));
}

TEST(OpenBaseTest, TakesTheNameFromTheLastPartOfThePath) {
  TempDir dir;
  ASSERT_OK(testing::WriteTinyCheckpoint(dir.File("base")));
  ASSERT_OK_AND_ASSIGN(const BaseModel base,
                       OpenBase({.directory = dir.File("base/"), .weights = "auto"}, true));
  EXPECT_EQ(base.name, "base");
  EXPECT_NE(base.tokenizer, nullptr);
}

TEST(LoadNetworkTest, TakesTheJobsWeightsWhereTheOptionsLeaveThemOpen) {
  TempDir dir;
  ASSERT_OK(testing::WriteTinyCheckpoint(dir.File("base")));
  BaseOptions options{.directory = dir.File("base"), .weights = "auto", .dtype = "fp32"};
  ASSERT_OK_AND_ASSIGN(const BaseModel base, OpenBase(options, false));
  ASSERT_OK_AND_ASSIGN(const auto nf4, LoadNetwork(base, options, "nf4"));
  EXPECT_EQ(nf4->options().weights, WeightsKind::kNf4);
  options.weights = "fp32";
  ASSERT_OK_AND_ASSIGN(const auto fp32, LoadNetwork(base, options, "nf4"));
  EXPECT_EQ(fp32->options().weights, WeightsKind::kFp32);
  EXPECT_EQ(ComputeDtypeName(fp32->options().dtype), "fp32");
}

TEST(MakePromptTest, TakesThePresetUnlessToldOtherwise) {
  ASSERT_OK_AND_ASSIGN(const PromptTemplate preset, PromptTemplate::Preset("default", "USD"));
  ASSERT_OK_AND_ASSIGN(const PromptTemplate plain, MakePrompt({}, "USD"));
  EXPECT_EQ(plain.preset, "default");
  EXPECT_EQ(plain.question, preset.question);
  EXPECT_EQ(plain.max_prompt_tokens, kDefaultMaxPromptTokens);

  PromptOptions options;
  options.prefix = "Cost: ";
  options.max_prompt_tokens = 77;
  ASSERT_OK_AND_ASSIGN(const PromptTemplate custom, MakePrompt(options, "USD"));
  EXPECT_EQ(custom.preset, "custom");
  EXPECT_EQ(custom.question, preset.question);
  EXPECT_EQ(custom.prefix, "Cost: ");
  EXPECT_EQ(custom.max_prompt_tokens, 77);
}

TEST(MakePromptTest, RefusesUnknownPresetsCurrenciesAndLimits) {
  PromptOptions fancy;
  fancy.preset = "fancy";
  EXPECT_THAT(MakePrompt(fancy, "USD"), StatusIs(kInvalid, HasSubstr("fancy")));
  EXPECT_THAT(MakePrompt({}, "dollars"), StatusIs(kInvalid, HasSubstr("dollars")));
  PromptOptions empty;
  empty.max_prompt_tokens = 0;
  EXPECT_THAT(MakePrompt(empty, "USD"), StatusIs(kInvalid));
}

TEST(CheckContextTest, PromptAndAnswerMustFit) {
  PromptTemplate prompt;
  prompt.max_prompt_tokens = 120;
  ModelConfig base;
  base.context_tokens = 128;
  EXPECT_OK(CheckContext(prompt, /*answer_tokens=*/8, base));
  prompt.max_prompt_tokens = 121;
  EXPECT_OK(CheckContext(prompt, /*answer_tokens=*/0, base));
  EXPECT_THAT(CheckContext(prompt, /*answer_tokens=*/8, base),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "--max-prompt-tokens is 121; the base's context of 128 tokens has room for "
                       "120"));
  // No sequence is longer than kMaxPromptTokens, whatever the context.
  base.context_tokens = 2 * kMaxPromptTokens;
  prompt.max_prompt_tokens = kMaxPromptTokens;
  EXPECT_OK(CheckContext(prompt, /*answer_tokens=*/0, base));
  EXPECT_THAT(CheckContext(prompt, /*answer_tokens=*/8, base),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("has room for 1048568")));
}

}  // namespace
}  // namespace pricer
