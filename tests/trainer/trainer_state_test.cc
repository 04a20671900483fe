#include "trainer/trainer_state.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "trainer/run_log.h"

namespace pricer {
namespace {

using ::testing::HasSubstr;
using testing::StatusIs;
using testing::TempDir;
using Json = nlohmann::json;

// As StepReporter has them.
absl::Status AppendStep(RunLog* log, int64_t step, double loss) {
  return log->Append({{"step", static_cast<double>(step)},
                      {"total_steps", 6},
                      {"loss", loss},
                      {"gradient_norm", 2.5},
                      {"learning_rate", 0.0002},
                      {"head_learning_rate", 0.0005},
                      {"rows", 10},
                      {"tokens", 900},
                      {"seconds", 0.5 * static_cast<double>(step)}});
}

absl::Status AppendValidation(RunLog* log, int64_t step, double mae) {
  Metrics metrics;
  metrics.items = 8;
  metrics.mae = mae;
  metrics.rmsle = 0.25;
  return log->AppendValidation(step, metrics);
}

TEST(TrainerStateTest, HasTheStepsAndValidationsOfARun) {
  TempDir dir;
  ASSERT_OK_AND_ASSIGN(RunLog log, RunLog::Create(dir.path(), "shop"));
  ASSERT_OK(AppendStep(&log, 1, 4));
  ASSERT_OK(AppendStep(&log, 2, 3.5));
  ASSERT_OK(AppendValidation(&log, 2, 12));
  ASSERT_OK(AppendStep(&log, 3, 3));
  ASSERT_OK(WriteTrainerState(
      log.directory(),
      {.training_items = 25, .epochs = 3, .best_model_checkpoint = "adapters/shop/1"}));
  ASSERT_OK_AND_ASSIGN(const std::string text, ReadFile(log.directory() + "/trainer_state.json"));
  EXPECT_EQ(Json::parse(text), Json::parse(R"({
    "epoch": 1.2, "global_step": 3, "max_steps": 6, "num_train_epochs": 3,
    "num_input_tokens_seen": 2700, "logging_steps": 1,
    "best_metric": 12.0, "best_global_step": 2, "best_model_checkpoint": "adapters/shop/1",
    "is_local_process_zero": true, "is_world_process_zero": true, "is_hyper_param_search": false,
    "trial_name": null, "trial_params": null,
    "log_history": [
      {"step": 1, "epoch": 0.4, "loss": 4, "grad_norm": 2.5, "learning_rate": 0.0002,
       "head_learning_rate": 0.0005, "rows": 10, "tokens": 900, "seconds": 0.5},
      {"step": 2, "epoch": 0.8, "loss": 3.5, "grad_norm": 2.5, "learning_rate": 0.0002,
       "head_learning_rate": 0.0005, "rows": 10, "tokens": 900, "seconds": 1},
      {"step": 2, "epoch": 0.8, "eval_items": 8, "eval_mae": 12, "eval_median_absolute_error": 0,
       "eval_rmsle": 0.25, "eval_within_20_percent": 0, "eval_pinball": 0, "eval_crps": 0},
      {"step": 3, "epoch": 1.2, "loss": 3, "grad_norm": 2.5, "learning_rate": 0.0002,
       "head_learning_rate": 0.0005, "rows": 10, "tokens": 900, "seconds": 1.5},
      {"step": 3, "epoch": 1.2, "train_loss": 3.5, "train_runtime": 1.5,
       "train_samples_per_second": 20.0, "train_steps_per_second": 2.0}]})"));
}

TEST(TrainerStateTest, ARunThatWentOnIsTheSameAsOneThatWasNeverStopped) {
  TempDir dir;
  const TrainerStateOptions options = {.training_items = 25};
  std::string whole;
  {
    ASSERT_OK_AND_ASSIGN(RunLog log, RunLog::Create(dir.path(), "whole"));
    for (int64_t step = 1; step <= 4; ++step) ASSERT_OK(AppendStep(&log, step, 5.0 / step));
    ASSERT_OK(WriteTrainerState(log.directory(), options));
    ASSERT_OK_AND_ASSIGN(whole, ReadFile(log.directory() + "/trainer_state.json"));
  }
  std::string directory;
  {
    ASSERT_OK_AND_ASSIGN(RunLog log, RunLog::Create(dir.path(), "stopped"));
    directory = log.directory();
    for (int64_t step = 1; step <= 3; ++step) ASSERT_OK(AppendStep(&log, step, 5.0 / step));
  }
  ASSERT_OK_AND_ASSIGN(RunLog log, RunLog::Reopen(directory, 2));
  for (int64_t step = 3; step <= 4; ++step) ASSERT_OK(AppendStep(&log, step, 5.0 / step));
  ASSERT_OK(WriteTrainerState(directory, options));
  ASSERT_OK_AND_ASSIGN(const std::string text, ReadFile(directory + "/trainer_state.json"));
  EXPECT_EQ(text, whole);
}

TEST(TrainerStateTest, TheFirstLowestErrorIsTheBest) {
  TempDir dir;
  ASSERT_OK_AND_ASSIGN(RunLog log, RunLog::Create(dir.path(), "shop"));
  const double maes[] = {9, 7.5, 8, 7.5};
  for (int64_t step = 1; step <= 4; ++step) {
    ASSERT_OK(AppendStep(&log, step, 3));
    ASSERT_OK(AppendValidation(&log, step, maes[step - 1]));
  }
  ASSERT_OK_AND_ASSIGN(const std::string metrics, ReadFile(log.directory() + "/metrics.jsonl"));
  ASSERT_OK_AND_ASSIGN(const std::string text,
                       TrainerStateJson(metrics, "m.jsonl", {.training_items = 10}));
  const Json state = Json::parse(text);
  EXPECT_EQ(state["best_metric"], 7.5);
  EXPECT_EQ(state["best_global_step"], 2);
  EXPECT_TRUE(state["best_model_checkpoint"].is_null());
  EXPECT_EQ(state["num_train_epochs"], 4);
}

TEST(TrainerStateTest, ARunWithoutStepsHasAnEmptyHistory) {
  ASSERT_OK_AND_ASSIGN(const std::string text,
                       TrainerStateJson("", "m.jsonl", {.training_items = 10}));
  const Json state = Json::parse(text);
  EXPECT_EQ(state["log_history"], Json::array());
  EXPECT_EQ(state["global_step"], 0);
  EXPECT_TRUE(state["best_metric"].is_null());
  EXPECT_TRUE(state["best_global_step"].is_null());
}

TEST(TrainerStateTest, PassesOverLinesOfOtherKindsAndNumbersThatAreNone) {
  ASSERT_OK_AND_ASSIGN(
      const std::string text,
      TrainerStateJson("{\"step\":1,\"note\":\"late\"}\n\n"
                       "{\"step\":1,\"validation\":{\"mae\":3,\"rmsle\":null,\"kind\":\"x\"}}\n",
                       "m.jsonl", {.training_items = 10}));
  EXPECT_EQ(Json::parse(text)["log_history"],
            Json::parse(R"([{"step": 1, "epoch": 0.0, "eval_mae": 3}])"));
}

TEST(TrainerStateTest, NamesLineAndFieldThatAreWrong) {
  const auto status = [](const std::string& line) {
    return TrainerStateJson("{\"step\":1}\n" + line, "r/metrics.jsonl", {.training_items = 1})
        .status();
  };
  constexpr auto kCode = absl::StatusCode::kDataLoss;
  EXPECT_THAT(status("{\"step\":2,\"lo"),
              StatusIs(kCode, HasSubstr("r/metrics.jsonl: line 2: not valid JSON")));
  EXPECT_THAT(status("[2]"), StatusIs(kCode, HasSubstr("r/metrics.jsonl: line 2: expected")));
  EXPECT_THAT(
      status(R"({"step":2.5,"loss":1})"),
      StatusIs(kCode,
               HasSubstr("r/metrics.jsonl: line 2: field 'step': expected an integer, got 2.5")));
  EXPECT_THAT(status(R"({"step":2,"loss":1,"total_steps":3})"),
              StatusIs(kCode, HasSubstr("line 2: field 'rows'")));
  EXPECT_THAT(status(R"({"step":2,"validation":{"mae":"low"}})"),
              StatusIs(kCode, HasSubstr("line 2: field 'validation.mae': expected a finite")));
}

TEST(TrainerStateTest, NamesTheFileThatIsMissing) {
  TempDir dir;
  EXPECT_THAT(WriteTrainerState(dir.path(), {.training_items = 1}),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr(dir.File("metrics.jsonl"))));
}

}  // namespace
}  // namespace pricer
