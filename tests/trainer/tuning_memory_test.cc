#include "trainer/tuning_memory.h"

#include <gmock/gmock.h>

#include <filesystem>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/tiny_model.h"
#include "trainer/tuning_run.h"

namespace pricer {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::StatusIs;

// A run whose activations are most of what it holds.
class TuningMemoryTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK(testing::WriteTinyCheckpoint(dir_.File("base"), {.layer_count = 6}));
    std::string items;
    for (int i = 0; i < 48; ++i) {
      absl::StrAppend(&items, "{\"title\":\"",
                      std::string(20 + i % 17, static_cast<char>('a' + i % 8)),
                      "\",\"price\":", 10 + 7 * (i % 8), "}\n");
    }
    ASSERT_OK(WriteFile(dir_.File("train.jsonl"), items));
    ASSERT_OK(WriteFile(dir_.File("validation.jsonl"), items));
  }

  TuningOptions Options(const std::string& output) const {
    TuningOptions options;
    options.base = {.directory = dir_.File("base"), .weights = "nf4", .dtype = "fp32"};
    options.data = dir_.File("train.jsonl");
    options.validation = dir_.File("validation.jsonl");
    options.output = dir_.File(output);
    options.name = "shop";
    options.runs = dir_.File("runs");
    options.lora_rank = 4;
    options.lora_dropout = 0.1;
    options.bins = 32;
    options.max_steps = 3;
    options.micro_batch_tokens = 1024;
    return options;
  }

  testing::TempDir dir_;
};

TEST_F(TuningMemoryTest, AnAdapterDoesNotDependOnTheBudget) {
  ASSERT_OK_AND_ASSIGN(const TuningOutcome without, RunTuning(Options("without")));
  EXPECT_EQ(without.recomputed_layers, 0);
  TuningOptions options = Options("within");
  options.memory_budget_bytes = int64_t{1} << 40;
  ASSERT_OK_AND_ASSIGN(TuningInputs inputs, OpenInputs(options));
  ASSERT_OK(LoadData(options, dir_.path(), &inputs));
  ASSERT_OK_AND_ASSIGN(const TuningFit roomy, FitMemoryBudget(options, inputs));
  EXPECT_EQ(roomy.recomputed_layers, 0);
  options.memory_budget_bytes = BudgetFor(roomy.tuning_bytes * 9 / 10, 0);
  ASSERT_OK_AND_ASSIGN(const TuningOutcome within, RunTuning(options));
  EXPECT_GT(within.recomputed_layers, 0);
  for (const char* file : {"/pricer.json", "/adapter_model.safetensors", "/_READY"}) {
    EXPECT_EQ(*ReadFile(within.published.directory + file),
              *ReadFile(without.published.directory + file))
        << file;
  }
}

TEST_F(TuningMemoryTest, ARunThatCannotFitEndsBeforeItReadsItsData) {
  TuningOptions options = Options("never");
  options.memory_budget_bytes = 1 << 20;
  EXPECT_THAT(RunTuning(options),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("--memory-budget 1.0 MiB"), HasSubstr("weights"),
                             HasSubstr("what would fit: --memory-budget"))));
  EXPECT_FALSE(std::filesystem::exists(dir_.File("never")));
  EXPECT_FALSE(std::filesystem::exists(dir_.File("runs")));
}

TEST_F(TuningMemoryTest, TheTokenHeadPlansItsAnswers) {
  TuningOptions options = Options("token");
  options.head = "token";
  options.micro_batch_tokens = 16384;  // so that answers are most of the difference
  options.memory_budget_bytes = int64_t{1} << 40;
  ASSERT_OK_AND_ASSIGN(TuningInputs inputs, OpenInputs(options));
  ASSERT_OK_AND_ASSIGN(const TuningFit allowed, FitMemoryBudget(options, inputs));
  ASSERT_OK(LoadData(options, dir_.path(), &inputs));
  ASSERT_OK_AND_ASSIGN(const TuningFit read, FitMemoryBudget(options, inputs));
  // The items are shorter than the prompts that are allowed, so that more of them answer.
  EXPECT_GT(read.tuning_bytes, allowed.tuning_bytes);
}

}  // namespace
}  // namespace pricer
