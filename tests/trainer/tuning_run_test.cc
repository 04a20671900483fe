#include "trainer/tuning_run.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/file.h"
#include "model/adapter.h"
#include "tests/testing/event_records.h"
#include "tests/testing/golden.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/tiny_model.h"
#include "trainer/inference.h"

namespace pricer {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::StatusIs;
using testing::TempDir;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

// Titles of one letter, each letter with its price.
std::string Items(int count) {
  std::string items;
  for (int i = 0; i < count; ++i) {
    const char letter = static_cast<char>('a' + i % 8);
    absl::StrAppend(&items, "{\"title\":\"", std::string(1, letter),
                    "\",\"price\":", std::round(10 * std::pow(1.6, i % 8)), "}\n");
  }
  return items;
}

class TuningRunTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK(testing::WriteTinyCheckpoint(dir_.File("base")));
    ASSERT_OK(WriteFile(dir_.File("train.jsonl"), Items(64)));
    ASSERT_OK(WriteFile(dir_.File("validation.jsonl"), Items(24)));
  }

  TuningOptions Options() const {
    TuningOptions options;
    options.base = {.directory = dir_.File("base"), .weights = "nf4", .dtype = "fp32"};
    options.data = dir_.File("train.jsonl");
    options.validation = dir_.File("validation.jsonl");
    options.output = dir_.File("adapters");
    options.name = "shop";
    options.runs = dir_.File("runs");
    options.prompt.question = "Q?";
    options.prompt.prefix = "$";
    options.lora_rank = 4;
    options.bins = 32;
    options.training.learning_rate = 3e-3;
    options.training.head_learning_rate = 3e-3;
    options.epochs = 8;
    options.batch_tokens = 128;
    options.micro_batch_tokens = 64;
    return options;
  }

  nlohmann::json ReadManifest(const TuningOutcome& outcome) const {
    return nlohmann::json::parse(*ReadFile(outcome.published.directory + "/pricer.json"));
  }

  // metrics.jsonl but for the seconds that steps took.
  static std::string MetricsWithoutTime(const std::string& run) {
    std::string text;
    for (absl::string_view line :
         absl::StrSplit(*ReadFile(run + "/metrics.jsonl"), '\n', absl::SkipEmpty())) {
      nlohmann::json json = nlohmann::json::parse(line);
      json.erase("seconds");
      absl::StrAppend(&text, json.dump(), "\n");
    }
    return text;
  }

  // A copy of the folder of a finished run, as if it had been killed after this step's checkpoint.
  std::string KilledAfter(const TuningOutcome& whole, int step) const {
    const std::string run = dir_.File(absl::StrCat("killed-", step));
    std::filesystem::copy(whole.run_directory, run, std::filesystem::copy_options::recursive);
    std::filesystem::remove(run + "/published.json");
    for (int64_t later = step + 1; later < whole.steps; ++later) {
      std::filesystem::remove_all(absl::StrCat(run, "/checkpoints/step-", later));
    }
    return run;
  }

  static std::vector<std::string> EventFiles(const std::string& run) {
    std::vector<std::string> paths;
    for (const auto& entry : std::filesystem::directory_iterator(run)) {
      const std::string name = entry.path().filename();
      if (name.rfind("events.out.tfevents.", 0) == 0) paths.push_back(entry.path());
    }
    std::sort(paths.begin(), paths.end());
    return paths;
  }

  TempDir dir_;
};

TEST_F(TuningRunTest, PublishesAnAdapterThatBeatsTheMedian) {
  ASSERT_OK_AND_ASSIGN(const TuningOutcome outcome, RunTuning(Options()));
  EXPECT_FALSE(outcome.interrupted);
  EXPECT_EQ(outcome.published.version, 1);
  EXPECT_EQ(outcome.published.directory, dir_.File("adapters/shop/1"));
  const nlohmann::json manifest = ReadManifest(outcome);
  EXPECT_EQ(manifest.at("weights"), "nf4");
  EXPECT_EQ(manifest.at("base").at("name"), "base");
  EXPECT_EQ(manifest.at("head").at("bins"), 32);
  EXPECT_EQ(manifest.at("golden").size(), 16u);
  const nlohmann::json& evaluation = manifest.at("evaluation");
  EXPECT_LT(evaluation.at("mae").get<double>(),
            0.6 * evaluation.at("training_median_mae").get<double>());
}

TEST_F(TuningRunTest, GoldenPricesComeOutOfThePublishedFiles) {
  ASSERT_OK_AND_ASSIGN(const TuningOutcome outcome, RunTuning(Options()));
  ASSERT_OK_AND_ASSIGN(const auto checkpoint, Checkpoint::Open(dir_.File("base")));
  ASSERT_OK_AND_ASSIGN(const std::string fingerprint, checkpoint->Fingerprint());
  ASSERT_OK_AND_ASSIGN(
      const PublishedAdapter published,
      LoadPublishedAdapter(outcome.published.directory, checkpoint->config(), fingerprint));
  ASSERT_OK_AND_ASSIGN(const auto tokenizer, Tokenizer::FromDirectory(dir_.File("base")));
  const auto network = testing::LoadNetwork(*checkpoint, WeightsKind::kNf4);
  const Manifest& manifest = published.manifest;
  for (const GoldenItem& golden : manifest.golden) {
    ASSERT_OK_AND_ASSIGN(const EncodedPrompt encoded,
                         EncodePrompt(manifest.prompt, *tokenizer, golden.item));
    const Prompt prompt = encoded.ids;
    ASSERT_OK_AND_ASSIGN(const auto logits,
                         ComputeBinLogits(*network, published.adapter.weights, {&prompt, 1}, 1000,
                                          [](int64_t) { return absl::OkStatus(); }));
    ASSERT_OK_AND_ASSIGN(
        const PriceDistribution distribution,
        PriceDistribution::FromLogits(manifest.bins.min_price, manifest.bins.max_price, logits[0],
                                      manifest.temperature));
    const PriceInterval interval = distribution.CentralInterval(0.8, manifest.ConformalOffset(0.8));
    EXPECT_NEAR(distribution.Quantile(0.5), golden.price, 1e-4 * golden.price);
    EXPECT_NEAR(interval.low, golden.low, 1e-4 * golden.low);
    EXPECT_NEAR(interval.high, golden.high, 1e-4 * golden.high);
  }
}

TEST_F(TuningRunTest, TheSameRunPublishesTheSameBytesAsTheNextVersion) {
  TuningOptions options = Options();
  options.max_steps = 6;
  ASSERT_OK_AND_ASSIGN(const TuningOutcome first, RunTuning(options));
  options.runs = dir_.File("other-runs");
  ASSERT_OK_AND_ASSIGN(const TuningOutcome second, RunTuning(options));
  EXPECT_EQ(second.published.version, 2);
  for (const char* file :
       {"/pricer.json", "/adapter_model.safetensors", "/adapter_config.json", "/_READY"}) {
    EXPECT_EQ(*ReadFile(first.published.directory + file),
              *ReadFile(second.published.directory + file))
        << file;
  }
}

TEST_F(TuningRunTest, ARunThatGoesOnPublishesTheSameBytesAndTheSameMetrics) {
  TuningOptions options = Options();
  options.max_steps = 9;
  options.validation_every = 4;
  options.save_minutes = 0;
  options.keep_checkpoints = 100;
  ASSERT_OK_AND_ASSIGN(const TuningOutcome whole, RunTuning(options));
  // A run that was killed after each of its checkpoints.
  for (int step = 1; step < 9; ++step) {
    SCOPED_TRACE(step);
    const std::string run = KilledAfter(whole, step);
    options.resume = run;
    ASSERT_OK_AND_ASSIGN(const TuningOutcome resumed, RunTuning(options));
    EXPECT_EQ(resumed.run_directory, run);
    EXPECT_EQ(resumed.steps, 9);
    for (const char* file : {"/pricer.json", "/adapter_model.safetensors", "/_READY"}) {
      EXPECT_EQ(*ReadFile(whole.published.directory + file),
                *ReadFile(resumed.published.directory + file))
          << file;
    }
    EXPECT_EQ(MetricsWithoutTime(run), MetricsWithoutTime(whole.run_directory));
  }
}

TEST_F(TuningRunTest, ARunThatGoesOnGivesTheSameWarnings) {
  // In the file's order each step has one item of every price, but for the 21st.
  constexpr int kStands = 21;
  std::string items = Items(8 * (kStands - 1));
  for (int i = 0; i < 8; ++i) {
    absl::StrAppend(&items, "{\"id\":\"odd-", i, "\",\"title\":\"a\",\"price\":10}\n");
  }
  ASSERT_OK(WriteFile(dir_.File("train.jsonl"), items + Items(16)));
  TuningOptions options = Options();
  options.training.learning_rate = 1e-6;
  options.training.head_learning_rate = 1e-6;
  options.epochs = 1;
  options.batch_items = 8;
  options.order = SampleOrder::kSequential;
  options.validation_every = 100;
  options.save_minutes = 0;
  options.keep_checkpoints = 100;
  ASSERT_OK_AND_ASSIGN(const TuningOutcome whole, RunTuning(options));
  EXPECT_THAT(MetricsWithoutTime(whole.run_directory),
              AllOf(HasSubstr("\"warning\":\"step 21: gradient norm "),
                    HasSubstr("rows: 161 (id 'odd-0'), 162 (id 'odd-1')"),
                    Not(HasSubstr("\"warning\":\"step 22"))));
  for (const int step : {1, 17, 20, 21, 22}) {
    SCOPED_TRACE(step);
    options.resume = KilledAfter(whole, step);
    ASSERT_OK(RunTuning(options));
    EXPECT_EQ(MetricsWithoutTime(options.resume), MetricsWithoutTime(whole.run_directory));
  }
}

TEST_F(TuningRunTest, LeavesAnEventFileOfEachProcessAndATrainerState) {
  TuningOptions options = Options();
  options.max_steps = 4;
  options.save_minutes = 0;
  options.keep_checkpoints = 100;
  ASSERT_OK_AND_ASSIGN(const TuningOutcome whole, RunTuning(options));
  options.resume = KilledAfter(whole, 2);
  std::filesystem::remove(options.resume + "/trainer_state.json");
  ASSERT_OK_AND_ASSIGN(const TuningOutcome resumed, RunTuning(options));
  EXPECT_EQ(EventFiles(whole.run_directory).size(), 1u);
  const std::vector<std::string> files = EventFiles(options.resume);
  ASSERT_EQ(files.size(), 2u);
  const auto events = testing::ReadEvents(files[1]);
  ASSERT_GE(events.size(), 3u);
  EXPECT_EQ(events[1].step(), 3);
  EXPECT_EQ(events[2].step(), 3);
  EXPECT_EQ(events.back().step(), 4);

  const nlohmann::json state =
      nlohmann::json::parse(*ReadFile(options.resume + "/trainer_state.json"));
  EXPECT_EQ(state.at("global_step"), 4);
  EXPECT_EQ(state.at("epoch"), state.at("log_history").back().at("epoch"));
  EXPECT_EQ(std::filesystem::weakly_canonical(options.resume + "/" +
                                              state.at("best_model_checkpoint").get<std::string>()),
            std::filesystem::weakly_canonical(resumed.published.directory));
}

TEST_F(TuningRunTest, RefusesToGoOnWithAnythingElse) {
  TuningOptions options = Options();
  options.max_steps = 3;
  options.save_minutes = 0;
  ASSERT_OK_AND_ASSIGN(const TuningOutcome outcome, RunTuning(options));
  options.resume = outcome.run_directory;
  EXPECT_THAT(RunTuning(options),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("the run is done")));
  std::filesystem::remove(outcome.run_directory + "/published.json");
  const auto refuses = [&](const std::string& part, auto change) {
    TuningOptions other = options;
    change(other);
    EXPECT_THAT(RunTuning(other),
                StatusIs(absl::StatusCode::kFailedPrecondition,
                         AllOf(HasSubstr(outcome.run_directory), HasSubstr(part))));
  };
  refuses("lr was '0.003'", [](TuningOptions& o) { o.training.learning_rate = 1e-3; });
  refuses("seed was", [](TuningOptions& o) { o.seed = 2; });
  refuses("question was 'Q?'", [](TuningOptions& o) { o.prompt.question = "What?"; });
  refuses("weights was", [](TuningOptions& o) { o.base.weights = "fp32"; });
  refuses("threads was", [](TuningOptions& o) { o.base.threads = 77; });
  ASSERT_OK(WriteFile(dir_.File("train.jsonl"), Items(65)));
  refuses("data was", [](TuningOptions&) {});
  std::filesystem::remove_all(outcome.run_directory + "/checkpoints");
  EXPECT_THAT(RunTuning(options),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("no whole checkpoint")));
}

TEST_F(TuningRunTest, TheManifestHoldsNoPathAndNoThreadCount) {
  TuningOptions options = Options();
  options.max_steps = 2;
  ASSERT_OK_AND_ASSIGN(const TuningOutcome outcome, RunTuning(options));
  const std::string text = *ReadFile(outcome.published.directory + "/pricer.json");
  EXPECT_THAT(text, Not(HasSubstr(dir_.path())));
  EXPECT_THAT(text, Not(HasSubstr("threads")));
  EXPECT_THAT(text, HasSubstr("\"lora_r\""));
}

TEST_F(TuningRunTest, LeavesOptionsAndOneMetricsLinePerStepAndValidation) {
  TuningOptions options = Options();
  options.max_steps = 6;
  options.validation_every = 4;
  options.training.head_learning_rate = 0.00123456789;
  ASSERT_OK_AND_ASSIGN(const TuningOutcome outcome, RunTuning(options));
  EXPECT_EQ(outcome.run_directory, dir_.File("runs/shop-1"));
  const nlohmann::json written =
      nlohmann::json::parse(*ReadFile(outcome.run_directory + "/options.json"));
  EXPECT_EQ(written.at("data"), options.data);
  EXPECT_EQ(written.at("question"), "Q?");
  EXPECT_EQ(written.at("lr"), "0.003");
  EXPECT_EQ(written.at("head_lr"), "0.00123456789");
  int steps = 0;
  int validations = 0;
  for (absl::string_view line : absl::StrSplit(*ReadFile(outcome.run_directory + "/metrics.jsonl"),
                                               '\n', absl::SkipEmpty())) {
    const nlohmann::json json = nlohmann::json::parse(line);
    json.contains("validation") ? ++validations : ++steps;
    if (json.contains("loss")) {
      EXPECT_EQ(json.at("step"), steps);
    }
  }
  EXPECT_EQ(steps, 6);
  EXPECT_EQ(validations, 2);
}

TEST_F(TuningRunTest, TheTokenHeadLearnsToSayPrices) {
  TuningOptions options = Options();
  options.head = "token";
  options.completion_suffix = ".";
  options.train_end_token = false;
  options.lora_rank = 16;
  options.lora_alpha = 64;
  options.epochs = 40;
  options.validation_every = 20;
  ASSERT_OK_AND_ASSIGN(const TuningOutcome outcome, RunTuning(options));
  const nlohmann::json manifest = ReadManifest(outcome);
  EXPECT_EQ(manifest.at("head").at("kind"), "token");
  EXPECT_EQ(manifest.at("price_space").at("max"), 999);
  EXPECT_EQ(manifest.at("calibration").at("temperature"), 1);
  EXPECT_LT(outcome.validation.mae,
            0.5 * manifest.at("evaluation").at("training_median_mae").get<double>());
  ASSERT_OK_AND_ASSIGN(const auto checkpoint, Checkpoint::Open(dir_.File("base")));
  ASSERT_OK_AND_ASSIGN(const std::string fingerprint, checkpoint->Fingerprint());
  ASSERT_OK_AND_ASSIGN(
      const PublishedAdapter published,
      LoadPublishedAdapter(outcome.published.directory, checkpoint->config(), fingerprint));
  EXPECT_EQ(published.adapter.config.task, PeftTask::kCausalLm);
  EXPECT_FALSE(published.adapter.weights.score.defined());
}

TEST_F(TuningRunTest, ATokenHeadRunThatGoesOnPublishesTheSameBytes) {
  TuningOptions options = Options();
  options.head = "token";
  options.train_end_token = false;
  options.lora_dropout = 0.1;
  options.epochs = 2;
  options.save_minutes = 0;
  options.keep_checkpoints = 100;
  ASSERT_OK_AND_ASSIGN(const TuningOutcome whole, RunTuning(options));
  const std::string stopped = dir_.File("stopped");
  std::filesystem::copy(whole.run_directory, stopped, std::filesystem::copy_options::recursive);
  std::filesystem::remove(stopped + "/published.json");
  for (int64_t step = 4; step <= whole.steps; ++step) {
    std::filesystem::remove_all(absl::StrCat(stopped, "/checkpoints/step-", step));
  }
  options.resume = stopped;
  ASSERT_OK_AND_ASSIGN(const TuningOutcome resumed, RunTuning(options));
  for (const char* file : {"/pricer.json", "/adapter_model.safetensors"}) {
    EXPECT_EQ(*ReadFile(whole.published.directory + file),
              *ReadFile(resumed.published.directory + file))
        << file;
  }
}

TEST_F(TuningRunTest, RejectsPricesThatTheTokenHeadCannotSay) {
  ASSERT_OK(
      WriteFile(dir_.File("train.jsonl"), Items(300) + "{\"title\":\"z\",\"price\":999.5}\n"));
  TuningOptions options = Options();
  options.head = "token";
  options.train_end_token = false;
  options.max_steps = 1;
  ASSERT_OK_AND_ASSIGN(const TuningOutcome outcome, RunTuning(options));
  EXPECT_EQ(outcome.rejects, 1);
  EXPECT_THAT(*ReadFile(outcome.run_directory + "/rejects-train.jsonl"),
              HasSubstr("the price 999.5 is beyond 999"));
}

TEST_F(TuningRunTest, PublishesTheLoraThatTheOptionsDescribe) {
  TuningOptions options = Options();
  options.max_steps = 2;
  options.lora_dropout = 0.1;
  options.rslora = true;
  options.target_regex = R"(model\.layers\.\d+\.(self_attn\.[qv]_proj|mlp\.up_proj))";
  options.exclude_modules = {"v_proj"};
  options.rank_pattern = {{R"(layers\.0\.mlp\.up_proj)", 2}};
  options.alpha_pattern = {{"q_proj", 5}};
  ASSERT_OK_AND_ASSIGN(const TuningOutcome outcome, RunTuning(options));
  ASSERT_OK_AND_ASSIGN(const auto checkpoint, Checkpoint::Open(dir_.File("base")));
  ASSERT_OK_AND_ASSIGN(const PeftAdapter adapter,
                       LoadPeftAdapter(outcome.published.directory, checkpoint->config()));
  EXPECT_EQ(adapter.config.dropout, 0.1);
  EXPECT_TRUE(adapter.config.use_rslora);
  EXPECT_FALSE(adapter.weights.lora(0, Projection::kV).defined());
  EXPECT_EQ(adapter.weights.lora(0, Projection::kUp).a.size(0), 2);
  EXPECT_EQ(adapter.weights.lora(1, Projection::kUp).a.size(0), 4);
  EXPECT_DOUBLE_EQ(adapter.weights.lora(1, Projection::kQ).scale, 5 / std::sqrt(4.0));
}

TEST_F(TuningRunTest, TakesOtherBatchesAndOrdersOfItems) {
  TuningOptions options = Options();
  options.epochs = 2;
  options.batch_items = 10;
  options.order = SampleOrder::kLengthGrouped;
  ASSERT_OK_AND_ASSIGN(const TuningOutcome outcome, RunTuning(options));
  // 64 items: six steps of ten and one of four in each epoch.
  EXPECT_EQ(outcome.steps, 14);
}

TEST_F(TuningRunTest, ASecondRunTakesItsTokensFromTheCache) {
  TuningOptions options = Options();
  options.max_steps = 2;
  ASSERT_OK_AND_ASSIGN(const TuningOutcome first, RunTuning(options));
  const std::string cache = dir_.File("runs/.token-cache");
  ASSERT_EQ(std::distance(std::filesystem::directory_iterator(cache), {}), 1);
  ASSERT_OK_AND_ASSIGN(const TuningOutcome second, RunTuning(options));
  EXPECT_EQ(*ReadFile(first.published.directory + "/pricer.json"),
            *ReadFile(second.published.directory + "/pricer.json"));
  // A broken cache costs nothing but time.
  for (const auto& file : std::filesystem::directory_iterator(cache)) {
    ASSERT_OK(WriteFile(file.path().string(), "broken"));
  }
  ASSERT_OK_AND_ASSIGN(const TuningOutcome third, RunTuning(options));
  EXPECT_EQ(*ReadFile(first.published.directory + "/pricer.json"),
            *ReadFile(third.published.directory + "/pricer.json"));
}

TEST_F(TuningRunTest, ReportsRejectsAndListsThemInTheRun) {
  ASSERT_OK(WriteFile(dir_.File("train.jsonl"), Items(64) + "{\"title\":\"x\",\"price\":-1}\n"));
  TuningOptions options = Options();
  options.max_steps = 1;
  options.max_reject_share = 0.1;
  ASSERT_OK_AND_ASSIGN(const TuningOutcome outcome, RunTuning(options));
  EXPECT_EQ(outcome.rejects, 1);
  EXPECT_THAT(ReadFile(outcome.run_directory + "/rejects-train.jsonl"),
              testing::IsOkAndHolds(HasSubstr("\"row\": 65")));
}

TEST_F(TuningRunTest, KeepsTheAdapterInTheRunWhereItCannotBePublished) {
  // The folder of the name is just short enough to be made; nothing in it is.
  constexpr size_t kBytes = 4080;
  TuningOptions options = Options();
  options.output = dir_.path();
  while (options.output.size() < kBytes) {
    const size_t bytes = std::min<size_t>(200, kBytes - options.output.size() - 1);
    options.output.push_back('/');
    options.output.append(bytes, 'x');
  }
  options.max_steps = 2;
  EXPECT_THAT(RunTuning(options),
              StatusIs(absl::StatusCode::kInternal,
                       HasSubstr("are kept in " + dir_.File("runs/shop-1/adapters/shop/1"))));
  ASSERT_OK_AND_ASSIGN(const auto checkpoint, Checkpoint::Open(dir_.File("base")));
  EXPECT_OK(LoadPublishedAdapter(dir_.File("runs/shop-1/adapters/shop/1"), checkpoint->config(),
                                 *checkpoint->Fingerprint()));
}

TEST_F(TuningRunTest, KeepsTheBestTensorsWhereTheRunDiverges) {
  TuningOptions options = Options();
  options.training.adamw.weight_decay = 1e12;
  options.validation_every = 1;
  EXPECT_THAT(
      RunTuning(options),
      StatusIs(absl::StatusCode::kInternal,
               AllOf(HasSubstr("a lower learning rate may help"),
                     HasSubstr("are kept in " + dir_.File("runs/shop-1/adapters/shop/1")))));
  EXPECT_TRUE(std::filesystem::exists(dir_.File("runs/shop-1/adapters/shop/1/_READY")));
  EXPECT_TRUE(std::filesystem::is_empty(dir_.File("adapters/shop")));
}

TEST_F(TuningRunTest, RefusesAnOutputThatCannotBeMadeBeforeTheRun) {
  TuningOptions options = Options();
  options.output = dir_.File("train.jsonl");
  EXPECT_THAT(RunTuning(options), StatusIs(kInvalid, HasSubstr("--output")));
  EXPECT_FALSE(std::filesystem::exists(dir_.File("runs")));
}

TEST_F(TuningRunTest, RefusesTooFewValidationItems) {
  ASSERT_OK(WriteFile(dir_.File("validation.jsonl"), Items(7)));
  EXPECT_THAT(RunTuning(Options()),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("7 items; at least 8")));
}

TEST_F(TuningRunTest, ChecksEveryOptionBeforeAnythingIsMade) {
  const auto refuses = [this](const std::string& part, auto change) {
    TuningOptions options = Options();
    change(options);
    EXPECT_THAT(RunTuning(options), StatusIs(kInvalid, HasSubstr(part)));
  };
  refuses("--base", [](TuningOptions& o) { o.base.directory = "/no/base"; });
  refuses("--data", [](TuningOptions& o) { o.data = "/no/data"; });
  refuses("--validation", [](TuningOptions& o) { o.validation = "/no/data"; });
  refuses("--data: /dev/null is not", [](TuningOptions& o) { o.data = "/dev/null"; });
  refuses("--output", [](TuningOptions& o) { o.output = ""; });
  refuses("--runs", [](TuningOptions& o) { o.runs = ""; });
  refuses("--max-prompt-tokens is 2049; the base's context of 2048",
          [](TuningOptions& o) { o.prompt.max_prompt_tokens = 2049; });
  refuses("Shop", [](TuningOptions& o) { o.name = "Shop"; });
  refuses("--lora-r", [](TuningOptions& o) { o.lora_rank = 0; });
  refuses("--lora-alpha", [](TuningOptions& o) { o.lora_alpha = 0; });
  refuses("--bins", [](TuningOptions& o) { o.bins = 1; });
  refuses("--sigma", [](TuningOptions& o) { o.sigma = -1; });
  refuses("--head-basis is sine", [](TuningOptions& o) { o.head_basis = "sine"; });
  refuses("--head is text", [](TuningOptions& o) { o.head = "text"; });
  refuses("--lora-dropout", [](TuningOptions& o) { o.lora_dropout = 1; });
  refuses("--patience", [](TuningOptions& o) { o.patience = -1; });
  refuses("--epochs", [](TuningOptions& o) { o.epochs = -1; });
  refuses("--batch-tokens", [](TuningOptions& o) { o.batch_tokens = 0; });
  refuses("--micro-batch-tokens", [](TuningOptions& o) { o.micro_batch_tokens = 0; });
  refuses("--validation-items", [](TuningOptions& o) { o.validation_items = 7; });
  refuses("--lr is 2; expected 0 to 1", [](TuningOptions& o) { o.training.learning_rate = 2; });
  refuses("--weights", [](TuningOptions& o) { o.base.weights = "int3"; });
  refuses("nose_proj", [](TuningOptions& o) { o.target_modules = {"nose_proj"}; });
  EXPECT_FALSE(std::filesystem::exists(dir_.File("adapters")));
}

}  // namespace
}  // namespace pricer
