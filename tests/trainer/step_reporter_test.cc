#include "trainer/step_reporter.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/file.h"
#include "tests/testing/event_records.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace pricer {
namespace {

using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::Pair;
using testing::StatusIs;
using testing::TempDir;

TEST(LiveTextTest, SaysWhatIsKnown) {
  LiveFigures figures{.items_per_second = 12.34, .tokens_per_second = 789.4, .loss = 3.21454};
  EXPECT_EQ(LiveText(figures), "12.3 items/s  789 tokens/s  loss 3.2145");
  figures.gemm_share = 0.674;
  figures.memory = {.resident_bytes = 5 << 28, .peak_resident_bytes = int64_t{6} << 28};
  EXPECT_EQ(LiveText(figures),
            "12.3 items/s  789 tokens/s  67 % of GEMM rate  1.25 GiB, peak 1.50  loss 3.2145");
}

class StepReporterTest : public ::testing::Test {
 protected:
  void SetUp() override {
    data_.file_rows = {2, 3, 5};
    data_.item_ids = {"a", "", "c"};
    auto log = RunLog::Create(dir_.path(), "shop");
    ASSERT_OK(log);
    log_.emplace(*std::move(log));
  }

  std::unique_ptr<StepReporter> Reporter(const StepReporter::Options& options = {}) {
    auto reporter = StepReporter::Create(&*log_, &data_, options);
    EXPECT_OK(reporter);
    return *std::move(reporter);
  }

  static StepResult Result(int64_t step) {
    StepResult result;
    result.step = step;
    result.loss = 3;
    result.gradient_norm = step % 2 == 0 ? 0.5 : 0.75;
    result.learning_rate = 2e-4;
    result.head_learning_rate = 5e-4;
    result.rows = 3;
    result.tokens = 200;
    result.targets = 3;
    result.flops = 3e9;
    result.row_numbers = {2, 1, 0};
    result.time = absl::Milliseconds(500);
    return result;
  }

  std::vector<std::string> EventFiles() const {
    std::vector<std::string> paths;
    for (const auto& entry : std::filesystem::directory_iterator(log_->directory())) {
      if (entry.path().filename().string().rfind("events.", 0) == 0) paths.push_back(entry.path());
    }
    std::sort(paths.begin(), paths.end());
    return paths;
  }

  static std::map<std::string, float> Scalars(const tensorboard::Event& event) {
    std::map<std::string, float> scalars;
    for (const auto& value : event.summary().value()) scalars[value.tag()] = value.simple_value();
    return scalars;
  }

  std::vector<std::string> MetricsLines() const {
    return absl::StrSplit(*ReadFile(log_->directory() + "/metrics.jsonl"), '\n', absl::SkipEmpty());
  }

  TempDir dir_;
  Dataset data_;
  std::optional<RunLog> log_;
};

TEST_F(StepReporterTest, AStepIsAnEventWithFiguresOfThatStepAlone) {
  ASSERT_OK(Reporter({.gemm_rate = 12e9})->Step(Result(0), 9));
  ASSERT_EQ(EventFiles().size(), 1u);
  const auto events = testing::ReadEvents(EventFiles()[0]);
  ASSERT_EQ(events.size(), 3u);  // version, start, step
  EXPECT_EQ(events[1].step(), 1);
  EXPECT_EQ(events[2].step(), 1);
  std::map<std::string, float> scalars = Scalars(events[2]);
  EXPECT_GT(scalars["train/resident_bytes"], 1e6);
  scalars.erase("train/resident_bytes");
  EXPECT_THAT(scalars,
              ElementsAre(Pair("train/gemm_share", 0.5f), Pair("train/grad_norm", 0.5f),
                          Pair("train/head_learning_rate", 5e-4f),
                          Pair("train/items_per_second", 6.0f), Pair("train/learning_rate", 2e-4f),
                          Pair("train/loss", 3.0f), Pair("train/tokens_per_second", 400.0f)));
}

TEST_F(StepReporterTest, WithoutARateThereIsNoShare) {
  ASSERT_OK(Reporter()->Step(Result(0), 9));
  EXPECT_EQ(Scalars(testing::ReadEvents(EventFiles()[0]).back()).count("train/gemm_share"), 0u);
}

TEST_F(StepReporterTest, AValidationIsAnEvent) {
  Metrics metrics;
  metrics.mae = 2.5;
  metrics.median_absolute_error = 2;
  metrics.rmsle = 0.5;
  metrics.within_20_percent = 0.25;
  const std::unique_ptr<StepReporter> reporter = Reporter();
  ASSERT_OK(reporter->Validated(4, metrics));
  metrics.coverage_80 = 0.75;
  ASSERT_OK(reporter->Validated(8, metrics));
  const auto events = testing::ReadEvents(EventFiles()[0]);
  ASSERT_EQ(events.size(), 4u);
  EXPECT_EQ(events[2].step(), 4);
  EXPECT_THAT(
      Scalars(events[2]),
      ElementsAre(Pair("validation/mae", 2.5f), Pair("validation/median_absolute_error", 2.0f),
                  Pair("validation/rmsle", 0.5f), Pair("validation/within_20_percent", 0.25f)));
  EXPECT_EQ(Scalars(events[3])["validation/coverage_80"], 0.75f);
}

TEST_F(StepReporterTest, ARunThatGoesOnHasAnotherEventFile) {
  ASSERT_OK(Reporter()->Step(Result(0), 9));
  Reporter({.steps_before = 1});
  ASSERT_EQ(EventFiles().size(), 2u);
  EXPECT_EQ(testing::ReadEvents(EventFiles()[1]).back().step(), 2);
}

TEST_F(StepReporterTest, AStepThatStandsOutIsWarnedOfByTheRowsOfTheFile) {
  const std::unique_ptr<StepReporter> reporter = Reporter();
  for (int64_t step = 0; step < 20; ++step) ASSERT_OK(reporter->Step(Result(step), 30));
  EXPECT_EQ(MetricsLines().size(), 20u);
  StepResult result = Result(20);
  result.gradient_norm = 9;
  ASSERT_OK(reporter->Step(result, 30));
  ASSERT_EQ(MetricsLines().size(), 22u);
  EXPECT_THAT(MetricsLines()[20], HasSubstr("{\"step\":21,\"total_steps\":30,"));
  EXPECT_THAT(MetricsLines()[21],
              ::testing::AllOf(HasSubstr("{\"step\":21,\"warning\":\"step 21: gradient norm 9 is "),
                               EndsWith("last 20 steps; rows: 5 (id 'c'), 3, 2 (id 'a')\"}")));
}

TEST_F(StepReporterTest, ARestoredWatchKnowsTheStepsBefore) {
  StepReporter::Options options;
  {
    const std::unique_ptr<StepReporter> reporter = Reporter();
    for (int64_t step = 0; step < 20; ++step) ASSERT_OK(reporter->Step(Result(step), 30));
    options.watch = reporter->watch_state();
    options.steps_before = 20;
  }
  StepResult result = Result(20);
  result.loss = 30;
  ASSERT_OK(Reporter({.steps_before = 20})->Step(result, 30));
  EXPECT_THAT(MetricsLines().back(), Not(HasSubstr("warning")));
  ASSERT_OK(Reporter(options)->Step(result, 30));
  EXPECT_THAT(MetricsLines().back(), HasSubstr("loss 30 is "));
}

TEST_F(StepReporterTest, RefusesAStateThatIsNone) {
  StepReporter::Options options;
  options.watch.losses.assign(1000, 1.0);
  EXPECT_THAT(StepReporter::Create(&*log_, &data_, options),
              StatusIs(absl::StatusCode::kDataLoss,
                       HasSubstr("losses: window: expected at most 128 values, got 1000")));
  EXPECT_TRUE(EventFiles().empty());
}

}  // namespace
}  // namespace pricer
