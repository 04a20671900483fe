#include "trainer/merge.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "base/file.h"
#include "model/quantize_checkpoint.h"
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
constexpr auto kPrecondition = absl::StatusCode::kFailedPrecondition;

class MergeTest : public ::testing::Test {
 protected:
  MergeTest() {
    EXPECT_OK(testing::WriteTinyCheckpoint(base_));
    options_.base = base_;
    options_.output = dir_.File("out");
    options_.dtype = "fp32";
  }

  // A version whose matrices are random, tuned on `weights`.
  void Publish(const std::string& weights) {
    ASSERT_OK_AND_ASSIGN(const auto base, Checkpoint::Open(base_));
    PeftConfig config;
    config.target_modules = {"all-linear"};
    ASSERT_OK_AND_ASSIGN(PeftAdapter adapter, MakeAdapter(config, base->config(), 6, 1));
    at::manual_seed(3);
    for (auto& layer : adapter.weights.layers) {
      for (LoraWeights& lora : layer) lora.b = at::randn(lora.b.sizes()) * 0.05;
    }
    adapter.weights.score = at::randn(adapter.weights.score.sizes()) * 0.1;
    Manifest manifest;
    ASSERT_OK_AND_ASSIGN(manifest.base_fingerprint, base->Fingerprint());
    manifest.base_name = "base";
    manifest.weights = weights;
    manifest.dtype = "fp32";
    manifest.prompt = {"custom", "How much?", "Price: $", 64};
    manifest.currency = "USD";
    manifest.bins = {.bins = 6, .min_price = 1, .max_price = 64, .sigma = 0.75};
    manifest.golden = {{"Kettle", 30, 20, 40}, {"Lamp", 30, 20, 40}, {"Spoon", 3, 2, 4}};
    ASSERT_OK_AND_ASSIGN(const PublishedVersion version,
                         PublishAdapter(adapter, manifest, dir_.File("adapters"), "shop"));
    options_.adapter = version.directory;
  }

  absl::StatusOr<MergeOutcome> MergeInto(const std::string& name) {
    options_.output = dir_.File(name);
    return RunMerge(options_);
  }

  std::string Weights(const std::string& name) const {
    return *ReadFile(dir_.File(name) + "/model.safetensors");
  }

  std::set<std::string> Entries() const {
    std::set<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(dir_.path())) {
      names.insert(entry.path().filename().string());
    }
    return names;
  }

  const TempDir dir_;
  const std::string base_ = dir_.File("base");
  MergeRunOptions options_;
};

TEST_F(MergeTest, AnswersOnTheGoldenItemsAsBaseAndAdapterDid) {
  Publish("nf4");
  ASSERT_OK_AND_ASSIGN(const MergeOutcome outcome, RunMerge(options_));
  EXPECT_EQ(outcome.onto, WeightsKind::kNf4);
  EXPECT_TRUE(outcome.has_bins);
  EXPECT_EQ(outcome.summary.merged, 14);
  ASSERT_TRUE(outcome.comparison.has_value());
  EXPECT_TRUE(outcome.comparison->golden);
  EXPECT_EQ(outcome.comparison->prompts, 3);
  EXPECT_LT(outcome.comparison->hidden_difference, 1e-4);
  EXPECT_LT(outcome.comparison->logits_difference, 1e-4);
  EXPECT_LT(outcome.comparison->price_change.value(), 1e-4);
  const auto config = nlohmann::json::parse(*ReadFile(options_.output + "/config.json"));
  EXPECT_EQ(config.at("id2label").at("1"), "bin 1: 2 to 4 USD");
}

TEST_F(MergeTest, ShowsWhatMergingOntoTheOriginalOfAQuantizedBaseCosts) {
  Publish("nf4");
  options_.onto = "original";
  ASSERT_OK_AND_ASSIGN(const MergeOutcome outcome, RunMerge(options_));
  EXPECT_EQ(outcome.onto, WeightsKind::kFp32);
  EXPECT_GT(outcome.comparison->logits_difference, 1e-2);
  EXPECT_GT(outcome.comparison->price_change.value(), 1e-3);
}

TEST_F(MergeTest, MergesOntoWhatTheAdapterWasTunedOn) {
  for (const auto& [weights, onto] :
       {std::pair{"nf4", "dequantized"}, std::pair{"fp32", "original"}}) {
    Publish(weights);
    options_.onto = "auto";
    ASSERT_OK(MergeInto(std::string("auto-") + weights));
    options_.onto = onto;
    ASSERT_OK(MergeInto(onto));
    EXPECT_TRUE(Weights(std::string("auto-") + weights) == Weights(onto)) << weights;
  }
  EXPECT_FALSE(Weights("dequantized") == Weights("original"));
}

TEST_F(MergeTest, GivesTheSameWeightsFromTheQuantizedFormOfTheBase) {
  Publish("nf4");
  ASSERT_OK(MergeInto("from-plain"));
  ASSERT_OK_AND_ASSIGN(const auto base, Checkpoint::Open(base_));
  ASSERT_OK(QuantizeCheckpoint(*base, dir_.File("quantized")));
  options_.base = dir_.File("quantized");
  ASSERT_OK_AND_ASSIGN(const MergeOutcome outcome, MergeInto("from-quantized"));
  EXPECT_LT(outcome.comparison->logits_difference, 1e-4);
  EXPECT_TRUE(Weights("from-plain") == Weights("from-quantized"));
  options_.onto = "original";
  EXPECT_THAT(MergeInto("none"), StatusIs(kPrecondition, HasSubstr("quantized")));
}

TEST_F(MergeTest, AsksWhatAPlainPeftDirectoryWasTunedOn) {
  options_.base = GoldenPath("models/gqa");
  options_.adapter = GoldenPath("adapters/causal-all-linear");
  EXPECT_THAT(RunMerge(options_), StatusIs(kInvalid, HasSubstr("--onto")));
  EXPECT_EQ(Entries(), std::set<std::string>{"base"});
  options_.onto = "original";
  ASSERT_OK_AND_ASSIGN(const MergeOutcome outcome, RunMerge(options_));
  EXPECT_FALSE(outcome.has_bins);
  EXPECT_EQ(outcome.comparison->prompts, 4);
  EXPECT_LT(outcome.comparison->logits_difference, 1e-4);
  EXPECT_FALSE(outcome.comparison->price_change.has_value());
}

TEST_F(MergeTest, ComparesNothingWhereNotAsked) {
  Publish("nf4");
  options_.check = "none";
  ASSERT_OK_AND_ASSIGN(const MergeOutcome outcome, RunMerge(options_));
  EXPECT_FALSE(outcome.comparison.has_value());
  EXPECT_TRUE(std::filesystem::exists(options_.output + "/model.safetensors"));
}

TEST_F(MergeTest, LeavesNothingBehindOnAnError) {
  Publish("nf4");
  ASSERT_OK(testing::WriteTinyCheckpoint(dir_.File("other"), {.seed = 2}));
  options_.base = dir_.File("other");
  EXPECT_THAT(RunMerge(options_), StatusIs(kPrecondition, HasSubstr("fingerprint")));
  options_.base = base_;
  options_.output = dir_.File("adapters");
  EXPECT_THAT(RunMerge(options_),
              StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr("adapters")));
  EXPECT_EQ(Entries(), (std::set<std::string>{"adapters", "base", "other"}));
}

TEST_F(MergeTest, NamesAWrongOption) {
  Publish("nf4");
  const MergeRunOptions good = options_;
  const auto expect = [&](auto change, const std::string& option) {
    options_ = good;
    change();
    EXPECT_THAT(options_.Validate(), StatusIs(kInvalid, HasSubstr(option)));
  };
  EXPECT_OK(good.Validate());
  expect([&] { options_.base = "/no/base"; }, "--base");
  expect([&] { options_.adapter = "/no/adapter"; }, "--adapter");
  expect([&] { options_.output = ""; }, "--output");
  expect([&] { options_.onto = "nf4"; }, "--onto");
  expect([&] { options_.dtype = "fp64"; }, "--dtype");
  expect([&] { options_.check = "maybe"; }, "--check");
  expect([&] { options_.threads = -1; }, "--threads");
}

}  // namespace
}  // namespace pricer
