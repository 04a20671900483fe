#include "server/price_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "tests/server/fakes.h"
#include "tests/testing/status_matchers.h"

namespace pricer {
namespace {

using ::testing::AllOf;
using ::testing::DoubleNear;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::IsOkAndHolds;
using testing::MakeLoadedAdapter;
using testing::StatusIs;

auto IsInvalid(const std::string& field, const std::string& detail = "") {
  return StatusIs(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr(field), HasSubstr(detail)));
}

TEST(AdapterChoiceTest, NothingMeansTheNewestVersionOfTheDefaultAdapter) {
  ASSERT_OK_AND_ASSIGN(const AdapterChoice choice, ChoiceFromProto(v1::AdapterSpec()));
  EXPECT_EQ(choice.name, "");
  EXPECT_FALSE(choice.version.has_value());
}

TEST(AdapterChoiceTest, TakesAVersionOrALabel) {
  v1::AdapterSpec spec;
  spec.set_name("toys");
  spec.set_version(7);
  EXPECT_EQ(ChoiceFromProto(spec)->version, 7);
  EXPECT_EQ(ChoiceFromProto(spec)->label, "");
  spec.set_label("canary");
  EXPECT_FALSE(ChoiceFromProto(spec)->version.has_value());
  EXPECT_EQ(ChoiceFromProto(spec)->label, "canary");
  spec.set_label("");
  EXPECT_FALSE(ChoiceFromProto(spec)->version.has_value());
}

TEST(AdapterChoiceTest, RefusesVersionsBelowOneAndLongNames) {
  v1::AdapterSpec spec;
  spec.set_version(0);
  EXPECT_THAT(ChoiceFromProto(spec), IsInvalid("adapter.version", "got 0"));
  spec.set_label(std::string(64, 'x'));
  EXPECT_THAT(ChoiceFromProto(spec), IsInvalid("adapter.label", "at most 63"));
  spec.set_name(std::string(64, 'x'));
  EXPECT_THAT(ChoiceFromProto(spec), IsInvalid("adapter.name", "at most 63"));
}

TEST(AdapterChoiceTest, TheBaseHasTheVersionZero) {
  v1::AdapterSpec spec;
  spec.set_name("base");
  EXPECT_EQ(ChoiceFromProto(spec)->name, "base");
  EXPECT_FALSE(ChoiceFromProto(spec)->version.has_value());
  spec.set_version(0);
  EXPECT_EQ(ChoiceFromProto(spec)->version, 0);
  spec.set_version(-1);
  EXPECT_THAT(ChoiceFromProto(spec), IsInvalid("adapter.version", "at least 0, got -1"));
}

TEST(PriceOptionsTest, DefaultsToTheMedianAndOneIntervalOf80Percent) {
  ASSERT_OK_AND_ASSIGN(const PriceOptions options, OptionsFromProto(v1::PredictOptions()));
  EXPECT_EQ(options.estimator.kind, Estimator::Kind::kMedian);
  EXPECT_THAT(options.interval_coverages, ElementsAre(0.8));
  EXPECT_TRUE(options.quantiles.empty());
  EXPECT_FALSE(options.want_distribution);
}

TEST(PriceOptionsTest, TakesWhatIsAskedFor) {
  v1::PredictOptions proto;
  proto.set_estimator("quantile:0.9");
  proto.add_quantiles(0.1);
  proto.add_interval_coverages(0.5);
  proto.set_want_distribution(true);
  ASSERT_OK_AND_ASSIGN(const PriceOptions options, OptionsFromProto(proto));
  EXPECT_EQ(options.estimator.kind, Estimator::Kind::kQuantile);
  EXPECT_EQ(options.estimator.level, 0.9);
  EXPECT_THAT(options.quantiles, ElementsAre(0.1));
  EXPECT_THAT(options.interval_coverages, ElementsAre(0.5));
  EXPECT_TRUE(options.want_distribution);
}

TEST(PriceOptionsTest, NamesTheOptionThatIsWrong) {
  v1::PredictOptions estimator;
  estimator.set_estimator("average");
  EXPECT_THAT(OptionsFromProto(estimator), IsInvalid("options.estimator", "average"));
  for (const double bad : {0.0, 1.0, -0.5, std::nan(""), HUGE_VAL}) {
    v1::PredictOptions quantiles;
    quantiles.add_quantiles(0.5);
    quantiles.add_quantiles(bad);
    EXPECT_THAT(OptionsFromProto(quantiles), IsInvalid("options.quantiles[1]"));
    v1::PredictOptions coverages;
    coverages.add_interval_coverages(bad);
    EXPECT_THAT(OptionsFromProto(coverages), IsInvalid("options.interval_coverages[0]"));
  }
}

TEST(PriceOptionsTest, NamesTheLimitThatIsExceeded) {
  v1::PredictOptions quantiles;
  for (int i = 0; i < 65; ++i) quantiles.add_quantiles(0.5);
  EXPECT_THAT(OptionsFromProto(quantiles), IsInvalid("options.quantiles", "at most 64"));
  v1::PredictOptions coverages;
  for (int i = 0; i < 17; ++i) coverages.add_interval_coverages(0.5);
  EXPECT_THAT(OptionsFromProto(coverages), IsInvalid("options.interval_coverages", "at most 16"));
}

TEST(ItemTextTest, JoinsTheFieldsOrTakesTheTextAsItIs) {
  v1::Item item;
  item.set_title("Lamp");
  item.set_description("Brass");
  EXPECT_THAT(ItemTextFromProto(item), IsOkAndHolds("Lamp\nBrass"));
  v1::Item text;
  text.set_text(" anything\n");
  EXPECT_THAT(ItemTextFromProto(text), IsOkAndHolds(" anything\n"));
}

TEST(ItemTextTest, RefusesNoTextAndTextBesideFields) {
  v1::Item item;
  item.set_id("7");
  EXPECT_THAT(ItemTextFromProto(item), IsInvalid("item", "no text"));
  item.set_text("Lamp");
  item.set_brand("Acme");
  EXPECT_THAT(ItemTextFromProto(item), IsInvalid("item.text", "one or the other"));
}

TEST(ItemTextTest, NamesTheFieldAndTheLimitThatIsExceeded) {
  v1::Item text;
  text.set_text(std::string(65537, 'x'));
  EXPECT_THAT(ItemTextFromProto(text), IsInvalid("item.text", "at most 65536 bytes, got 65537"));
  v1::Item details;
  details.set_details(std::string(65537, 'x'));
  EXPECT_THAT(ItemTextFromProto(details), IsInvalid("item.details", "65536"));
  v1::Item together;
  together.set_title(std::string(40000, 'x'));
  together.set_description(std::string(40000, 'x'));
  EXPECT_THAT(ItemTextFromProto(together), IsInvalid("together", "65536"));
  v1::Item id;
  id.set_id(std::string(1025, 'x'));
  id.set_title("Lamp");
  EXPECT_THAT(ItemTextFromProto(id), IsInvalid("item.id", "at most 1024"));
}

TEST(ItemCountTest, NamesTheLimit) {
  EXPECT_OK(CheckItemCount(1));
  EXPECT_OK(CheckItemCount(1024));
  EXPECT_THAT(CheckItemCount(0), IsInvalid("items", "at least 1"));
  EXPECT_THAT(CheckItemCount(1025), IsInvalid("items", "at most 1024"));
}

TEST(PredictionTest, SaysWhatAnsweredAndHowLongItTook) {
  const auto adapter = MakeLoadedAdapter("toys", 3);
  PriceOptions options;
  options.quantiles = {0.5};
  options.want_distribution = true;
  v1::Prediction prediction;
  FillPrediction(PriceDistribution(1, 10000, {0.5, 0.5}), options,
                 {.adapter = *adapter,
                  .label = "canary",
                  .model_fingerprint = "f00d",
                  .prompt_tokens = 42,
                  .truncated = true,
                  .queue_time = absl::Milliseconds(3),
                  .compute_time = absl::Seconds(2)},
                 &prediction);
  EXPECT_THAT(prediction.price(), DoubleNear(100, 1e-6));
  EXPECT_EQ(prediction.currency_code(), "USD");
  EXPECT_GT(prediction.confidence(), 0);
  ASSERT_EQ(prediction.intervals_size(), 1);
  EXPECT_EQ(prediction.intervals(0).coverage(), 0.8);
  EXPECT_LT(prediction.intervals(0).low(), prediction.price());
  EXPECT_GT(prediction.intervals(0).high(), prediction.price());
  ASSERT_EQ(prediction.quantiles_size(), 1);
  EXPECT_EQ(prediction.quantiles(0).price(), prediction.price());
  EXPECT_THAT(prediction.distribution().probabilities(), ElementsAre(0.5, 0.5));
  EXPECT_THAT(prediction.distribution().edges(),
              ElementsAre(DoubleNear(1, 1e-9), DoubleNear(100, 1e-6), DoubleNear(10000, 1e-4)));
  EXPECT_EQ(prediction.served_by().model(), "f00d");
  EXPECT_EQ(prediction.served_by().adapter(), "toys");
  EXPECT_EQ(prediction.served_by().version(), 3);
  EXPECT_EQ(prediction.served_by().digest(), "toys-digest-3");
  EXPECT_EQ(prediction.served_by().label(), "canary");
  EXPECT_EQ(prediction.prompt_tokens(), 42);
  EXPECT_TRUE(prediction.truncated());
  EXPECT_EQ(prediction.queue_time().nanos(), 3'000'000);
  EXPECT_EQ(prediction.compute_time().seconds(), 2);
}

TEST(PredictionTest, WholePricesLieBetweenEdgesThatRoundToThem) {
  const auto adapter = MakeLoadedAdapter("toys", 3);
  std::vector<double> masses(1000, 0.0);
  masses[0] = 0.1;
  masses[19] = 0.6;
  masses[20] = 0.1;
  masses[999] = 0.2;
  PriceOptions options;
  options.quantiles = {0.05, 0.75};
  options.want_distribution = true;
  v1::Prediction prediction;
  FillPrediction(PriceDistribution::OfWholePrices(masses), options,
                 {.adapter = *adapter, .model_fingerprint = ""}, &prediction);
  EXPECT_EQ(prediction.price(), 19);
  EXPECT_THAT(prediction.confidence(), DoubleNear(0.7, 1e-9));
  EXPECT_EQ(prediction.intervals(0).low(), 0.5);
  EXPECT_EQ(prediction.intervals(0).high(), 999);
  EXPECT_EQ(prediction.quantiles(0).price(), 0.5);
  EXPECT_EQ(prediction.quantiles(1).price(), 20);
  const v1::Distribution& distribution = prediction.distribution();
  ASSERT_EQ(distribution.probabilities_size(), 1000);
  ASSERT_EQ(distribution.edges_size(), 1001);
  EXPECT_EQ(distribution.edges(0), 0);
  EXPECT_EQ(distribution.edges(1), 0.5);
  EXPECT_EQ(distribution.edges(1000), 999.5);
  EXPECT_THAT(distribution.probabilities(19), DoubleNear(0.6, 1e-9));
}

TEST(PredictionTest, LeavesTheDistributionOutUnlessItIsAskedFor) {
  v1::Prediction prediction;
  const auto adapter = MakeLoadedAdapter("toys", 3);
  FillPrediction(PriceDistribution(1, 10000, {1}), PriceOptions(),
                 {.adapter = *adapter, .model_fingerprint = ""}, &prediction);
  EXPECT_FALSE(prediction.has_distribution());
  EXPECT_FALSE(prediction.truncated());
}

}  // namespace
}  // namespace pricer
