#include "trainer/evaluation.h"

#include <gmock/gmock.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/file.h"
#include "model/adapter.h"
#include "tests/testing/golden.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/tiny_model.h"

namespace pricer {
namespace {

using ::testing::AllOf;
using testing::GoldenPath;
using ::testing::HasSubstr;
using testing::StatusIs;
using testing::TempDir;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

class EvaluationTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK(testing::WriteTinyCheckpoint(dir_.File("base")));
    std::string items;
    for (int i = 1; i <= 20; ++i) {
      absl::StrAppend(&items, "{\"id\":\"p", i, "\",\"title\":\"Thing ", i, "\",\"price\":", 10 * i,
                      "}\n");
    }
    ASSERT_OK(WriteFile(dir_.File("items.jsonl"), items));
  }

  EvaluationOptions Options() const {
    EvaluationOptions options;
    options.base = {.directory = dir_.File("base"), .weights = "auto", .dtype = "fp32"};
    options.data = dir_.File("items.jsonl");
    options.predictions = dir_.File("predictions.jsonl");
    options.json = dir_.File("metrics.json");
    return options;
  }

  // A published adapter whose head is all zeros: every price has the same distribution, uniform in
  // ln(price).
  std::string PublishUniform(double training_median) {
    const auto checkpoint = Checkpoint::Open(dir_.File("base"));
    EXPECT_OK(checkpoint);
    PeftConfig config;
    config.target_modules = {"q_proj", "v_proj"};
    auto adapter = MakeAdapter(config, (*checkpoint)->config(), /*bins=*/16, /*seed=*/1);
    EXPECT_OK(adapter);
    Manifest manifest;
    manifest.base_fingerprint = *(*checkpoint)->Fingerprint();
    manifest.base_name = "base";
    manifest.weights = "fp32";
    manifest.dtype = "fp32";
    manifest.prompt = *PromptTemplate::Preset("default", "USD");
    manifest.currency = "USD";
    manifest.bins = {.bins = 16, .min_price = 10, .max_price = 1000, .sigma = 0.75};
    manifest.conformal = {{"0.8", std::log(1.25)}};
    manifest.evaluation = {{"training_median", training_median}};
    for (int i = 0; i < 8; ++i) {
      manifest.golden.push_back({.item = "Thing", .price = 100, .low = 12, .high = 800});
    }
    manifest.trainer_version = "0";
    manifest.data_digest = std::string(64, '0');
    const auto published = PublishAdapter(*adapter, manifest, dir_.File("adapters"), "uniform");
    EXPECT_OK(published);
    return published->directory;
  }

  nlohmann::json Json() const {
    return nlohmann::json::parse(*ReadFile(dir_.File("metrics.json")));
  }

  std::vector<nlohmann::json> Predictions() const {
    std::vector<nlohmann::json> lines;
    for (absl::string_view line :
         absl::StrSplit(*ReadFile(dir_.File("predictions.jsonl")), '\n', absl::SkipEmpty())) {
      lines.push_back(nlohmann::json::parse(line));
    }
    return lines;
  }

  TempDir dir_;
};

TEST_F(EvaluationTest, ReadsPricesFromTheBinsHead) {
  EvaluationOptions options = Options();
  options.adapter = PublishUniform(/*training_median=*/100);
  ASSERT_OK_AND_ASSIGN(const EvaluationOutcome outcome, RunEvaluation(options));
  const std::vector<nlohmann::json> predictions = Predictions();
  ASSERT_EQ(predictions.size(), 20u);
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(predictions[i].at("id"), absl::StrCat("p", i + 1));
    EXPECT_EQ(predictions[i].at("truth"), 10.0 * (i + 1));
    // Quantile q of a distribution that is uniform in ln(price) from 10 to 1000 is 10 * 100^q.
    EXPECT_NEAR(predictions[i].at("price").get<double>(), 100.0, 1e-6);
    EXPECT_NEAR(predictions[i].at("quantiles").at("0.75").get<double>(), 10 * std::pow(100.0, 0.75),
                1e-6);
    EXPECT_NEAR(predictions[i].at("low").get<double>(), 10 * std::pow(100.0, 0.1) / 1.25, 1e-6);
    EXPECT_NEAR(predictions[i].at("high").get<double>(), 10 * std::pow(100.0, 0.9) * 1.25, 1e-6);
  }
  const nlohmann::json json = Json();
  EXPECT_EQ(json.at("items"), 20);
  EXPECT_EQ(json.at("unparsable"), 0);
  EXPECT_NEAR(json.at("coverage_80").get<double>(), 0.95, 1e-9);
  EXPECT_EQ(json.at("baseline_median"), 100.0);
  EXPECT_EQ(json.at("baseline_median_of"), "training items");
  EXPECT_NEAR(json.at("mae").get<double>(), json.at("baseline").at("mae").get<double>(), 1e-6);
  EXPECT_EQ(outcome.rejects, 0);
}

TEST_F(EvaluationTest, RefusesAnotherPromptOrCurrencyThanTheAdapters) {
  const std::string adapter = PublishUniform(/*training_median=*/100);
  const auto run = [&](auto change) {
    EvaluationOptions options = Options();
    options.adapter = adapter;
    options.limit = 2;
    change(options);
    return RunEvaluation(options).status();
  };
  const auto refused = [](const std::string& part) {
    return StatusIs(kInvalid, AllOf(HasSubstr(part), HasSubstr("come from its pricer.json")));
  };
  EXPECT_THAT(run([](auto& o) { o.currency = "EUR"; }), refused("--currency is \"EUR\""));
  EXPECT_THAT(run([](auto& o) { o.prompt.preset = "reference"; }), refused("--preset"));
  EXPECT_THAT(run([](auto& o) { o.prompt.question = "x"; }), refused("--question is \"x\""));
  EXPECT_THAT(run([](auto& o) { o.prompt.prefix = "x"; }), refused("--prefix is \"x\""));
  EXPECT_THAT(run([](auto& o) { o.prompt.max_prompt_tokens = 100; }),
              refused("--max-prompt-tokens is \"100\""));
  EXPECT_OK(run([](auto& o) {
    o.currency = "USD";
    o.prompt.preset = "default";
    o.prompt.max_prompt_tokens = kDefaultMaxPromptTokens;
  }));
}

TEST_F(EvaluationTest, TheBaseGeneratesAndUnparsableRowsScoreAsTheMedian) {
  EvaluationOptions options = Options();
  options.estimator = "generate";
  ASSERT_OK_AND_ASSIGN(const EvaluationOutcome outcome, RunEvaluation(options));
  // A random model rarely writes digits.
  EXPECT_GT(outcome.metrics.unparsable, 0);
  int64_t at_median = 0;
  for (const nlohmann::json& prediction : Predictions()) {
    EXPECT_TRUE(prediction.at("low").is_null());
    EXPECT_TRUE(prediction.at("high").is_null());
    EXPECT_TRUE(prediction.at("quantiles").is_null());
    if (prediction.at("price") == 105.0) ++at_median;
  }
  EXPECT_EQ(at_median, outcome.metrics.unparsable);
  const nlohmann::json json = Json();
  EXPECT_EQ(json.at("unparsable"), outcome.metrics.unparsable);
  EXPECT_TRUE(json.at("coverage_80").is_null());
  EXPECT_EQ(json.at("baseline_median"), 105.0);
  EXPECT_EQ(json.at("baseline_median_of"), "evaluated items");
}

TEST_F(EvaluationTest, ReadsTheBasesOwnHead) {
  EvaluationOptions options = Options();
  options.base.directory = GoldenPath("token_prices/digits");
  options.base.weights = "fp32";
  ASSERT_OK_AND_ASSIGN(const EvaluationOutcome outcome, RunEvaluation(options));
  ASSERT_TRUE(outcome.token_mass.has_value());
  const TokenMass& mass = *outcome.token_mass;
  EXPECT_GT(mass.prices, 0.2);
  EXPECT_GT(mass.overflow, 0);
  EXPECT_GT(mass.not_a_price, 0);
  EXPECT_NEAR(mass.prices + mass.pruned + mass.overflow + mass.not_a_price, 1.0, 1e-9);
  EXPECT_EQ(outcome.metrics.unparsable, 0);
  for (const nlohmann::json& prediction : Predictions()) {
    const double price = prediction.at("price");
    EXPECT_EQ(price, prediction.at("quantiles").at("0.5").get<double>());
    EXPECT_TRUE(price == 0.5 || price == std::floor(price)) << price;
    EXPECT_LE(prediction.at("low").get<double>(), price);
  }
  options.estimator = "quantile:0.9";
  ASSERT_OK(RunEvaluation(options));
  for (const nlohmann::json& prediction : Predictions()) {
    EXPECT_EQ(prediction.at("price"), prediction.at("quantiles").at("0.9"));
  }
  options.estimator = "modus";
  EXPECT_THAT(RunEvaluation(options), StatusIs(kInvalid, HasSubstr("--estimator 'modus'")));
}

TEST_F(EvaluationTest, TakesTheBaselineFromTrainingItemsWhereGiven) {
  ASSERT_OK(WriteFile(dir_.File("train.jsonl"),
                      "{\"title\":\"a\",\"price\":30}\n{\"title\":\"b\",\"price\":50}\n"));
  EvaluationOptions options = Options();
  options.train_data = dir_.File("train.jsonl");
  options.limit = 3;
  ASSERT_OK_AND_ASSIGN(const EvaluationOutcome outcome, RunEvaluation(options));
  EXPECT_EQ(outcome.baseline.median, 40.0);
  EXPECT_EQ(outcome.metrics.items, 3);
  EXPECT_NEAR(outcome.baseline.metrics.mae, (30.0 + 20 + 10) / 3, 1e-9);
}

TEST_F(EvaluationTest, ACausalAdapterGeneratesToo) {
  EvaluationOptions options = Options();
  options.estimator = "generate";
  const auto checkpoint = Checkpoint::Open(dir_.File("base"));
  ASSERT_OK(checkpoint);
  PeftConfig config;
  config.task = PeftTask::kCausalLm;
  config.target_modules = {"q_proj"};
  ASSERT_OK_AND_ASSIGN(const PeftAdapter adapter,
                       MakeAdapter(config, (*checkpoint)->config(), /*bins=*/0, /*seed=*/1));
  ASSERT_OK(MakeDirectories(dir_.File("causal")));
  ASSERT_OK(SavePeftAdapter(adapter, dir_.File("causal")));
  options.adapter = dir_.File("causal");
  ASSERT_OK(RunEvaluation(options));
  EXPECT_TRUE(Predictions()[0].at("quantiles").is_null());
}

TEST_F(EvaluationTest, RefusesABinsHeadWithoutAManifest) {
  EvaluationOptions options = Options();
  options.base.directory = GoldenPath("models/gqa");
  options.adapter = GoldenPath("adapters/seqcls-qv");
  // The golden base has no tokenizer, so a copy of the tiny one's stands in.
  std::filesystem::create_directory(dir_.File("gqa"));
  for (const char* name : {"config.json", "model.safetensors"}) {
    std::filesystem::copy(GoldenPath("models/gqa") + "/" + name, dir_.File("gqa"));
  }
  std::filesystem::copy(dir_.File("base/tokenizer.json"), dir_.File("gqa"));
  options.base.directory = dir_.File("gqa");
  EXPECT_THAT(RunEvaluation(options),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("no price range")));
}

TEST_F(EvaluationTest, CountsAndListsRejects) {
  ASSERT_OK(
      WriteFile(dir_.File("items.jsonl"), "{\"title\":\"a\",\"price\":30}\n{\"title\":\"b\"}\n"));
  EvaluationOptions options = Options();
  options.max_reject_share = 0.5;
  ASSERT_OK_AND_ASSIGN(const EvaluationOutcome outcome, RunEvaluation(options));
  EXPECT_EQ(outcome.rejects, 1);
  EXPECT_EQ(outcome.metrics.items, 1);
  EXPECT_THAT(ReadFile(dir_.File("predictions.jsonl.rejects.jsonl")),
              testing::IsOkAndHolds(HasSubstr("\"row\": 2")));
}

TEST_F(EvaluationTest, OnlyCountsRejectsWherePredictionsGoToAStream) {
  ASSERT_OK(
      WriteFile(dir_.File("items.jsonl"), "{\"title\":\"a\",\"price\":30}\n{\"title\":\"b\"}\n"));
  EvaluationOptions options = Options();
  options.max_reject_share = 0.5;
  options.predictions = "/dev/null";
  ASSERT_OK_AND_ASSIGN(const EvaluationOutcome outcome, RunEvaluation(options));
  EXPECT_EQ(outcome.rejects, 1);
  EXPECT_EQ(outcome.metrics.items, 1);
}

TEST_F(EvaluationTest, RefusesToReplaceItsInputsOrItsOtherOutput) {
  const auto refused = [](const std::string& option, const std::string& other) {
    return StatusIs(kInvalid, AllOf(HasSubstr(option), HasSubstr("is also " + other)));
  };
  EvaluationOptions options = Options();
  options.predictions = options.data;
  EXPECT_THAT(RunEvaluation(options), refused("--predictions", "--data"));
  options = Options();
  options.train_data = options.data;
  options.json = options.data;
  EXPECT_THAT(RunEvaluation(options), refused("--json", "--data"));
  options = Options();
  options.json = options.predictions;
  EXPECT_THAT(RunEvaluation(options), refused("--json", "--predictions"));
  options.json += ".rejects.jsonl";
  EXPECT_THAT(RunEvaluation(options), refused("--json", "rejects of --predictions"));
}

TEST_F(EvaluationTest, AGeneratedAnswerNeedsRoomInTheContext) {
  EvaluationOptions options = Options();
  options.estimator = "generate";
  options.prompt.max_prompt_tokens = 2041;
  EXPECT_THAT(RunEvaluation(options), StatusIs(kInvalid, HasSubstr("has room for 2040")));
}

TEST_F(EvaluationTest, ChecksOptionsBeforeAnythingIsLoaded) {
  EvaluationOptions options = Options();
  options.data = dir_.File("none.jsonl");
  EXPECT_THAT(RunEvaluation(options), StatusIs(kInvalid, HasSubstr("--data")));
  options = Options();
  options.json = dir_.File("none/metrics.json");
  EXPECT_THAT(RunEvaluation(options), StatusIs(kInvalid, HasSubstr("--json")));
  options = Options();
  options.adapter = dir_.File("none");
  EXPECT_THAT(RunEvaluation(options), StatusIs(kInvalid, HasSubstr("--adapter")));
  options = Options();
  options.limit = -1;
  EXPECT_THAT(RunEvaluation(options), StatusIs(kInvalid, HasSubstr("--limit")));
}

}  // namespace
}  // namespace pricer
