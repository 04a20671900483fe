#include "trainer/report.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

namespace pricer {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

Metrics SomeMetrics() {
  Metrics metrics;
  metrics.items = 3;
  metrics.mae = 12.5;
  metrics.median_absolute_error = 10;
  metrics.rmsle = 0.5;
  metrics.mape = 0.25;
  metrics.within_20_percent = 0.625;
  metrics.coverage_80 = 0.75;
  metrics.pinball = 4;
  metrics.crps = 8;
  metrics.unparsable = 2;
  return metrics;
}

Baseline SomeBaseline() {
  return {
      .median_of = "training items", .median = 20, .metrics = MeasureConstant(20, {10.0, 40.0})};
}

TEST(EvaluationJsonTest, HasExactlyTheAgreedKeys) {
  const auto json = nlohmann::ordered_json::parse(EvaluationJson(SomeMetrics(), SomeBaseline()));
  std::vector<std::string> keys;
  for (const auto& [key, value] : json.items()) keys.push_back(key);
  EXPECT_THAT(keys, ::testing::ElementsAre("items", "mae", "median_absolute_error", "rmsle", "mape",
                                           "within_20_percent", "coverage_80", "pinball", "crps",
                                           "unparsable", "baseline", "baseline_median",
                                           "baseline_median_of"));
  EXPECT_EQ(json["items"], 3);
  EXPECT_EQ(json["coverage_80"], 0.75);
  EXPECT_EQ(json["unparsable"], 2);
  EXPECT_EQ(json["baseline"].size(), 10u);
  EXPECT_EQ(json["baseline"]["mae"], 15.0);
  EXPECT_TRUE(json["baseline"]["coverage_80"].is_null());
  EXPECT_EQ(json["baseline_median_of"], "training items");
}

TEST(EvaluationTableTest, SetsTheModelBesideTheConstant) {
  const std::string table = EvaluationTable("adapter", SomeMetrics(), SomeBaseline());
  EXPECT_THAT(table, HasSubstr("median of training items"));
  EXPECT_THAT(table, HasSubstr("MAE                              12.5              15"));
  EXPECT_THAT(table, HasSubstr("in the 80 % interval           75.0 %               -"));
  EXPECT_THAT(table, HasSubstr("unparsable"));
  Metrics parsed = SomeMetrics();
  parsed.unparsable = 0;
  EXPECT_THAT(EvaluationTable("adapter", parsed, SomeBaseline()), Not(HasSubstr("unparsable")));
}

TEST(PredictionLineTest, WritesIntervalAndQuantilesOfADistribution) {
  ScoredPrice score;
  score.price = 10.5;
  score.truth = 12;
  score.interval = {.coverage = 0.8, .low = 8, .high = 14};
  score.quantiles = {1, 2, 3, 4, 5, 6, 7};
  EXPECT_EQ(PredictionLine("a\"b", score),
            "{\"id\":\"a\\\"b\",\"price\":10.5,\"truth\":12.0,\"low\":8.0,\"high\":14.0,"
            "\"quantiles\":{\"0.05\":1.0,\"0.1\":2.0,\"0.25\":3.0,\"0.5\":4.0,\"0.75\":5.0,"
            "\"0.9\":6.0,\"0.95\":7.0}}\n");
}

TEST(PredictionLineTest, WritesNullForWhatASinglePriceLacks) {
  EXPECT_EQ(PredictionLine("x", ScorePoint(10, 12)),
            "{\"id\":\"x\",\"price\":10.0,\"truth\":12.0,\"low\":null,\"high\":null,"
            "\"quantiles\":null}\n");
}

TEST(MetricsLineTest, EndsWithTheCoverageWhereThereAreIntervals) {
  Metrics metrics = SomeMetrics();
  EXPECT_EQ(MetricsLine(metrics),
            "MAE 12.5  median error 10  RMSLE 0.500  within 20 %: 62.5 %  in the 80 % interval: "
            "75.0 %");
  metrics.coverage_80.reset();
  EXPECT_EQ(MetricsLine(metrics), "MAE 12.5  median error 10  RMSLE 0.500  within 20 %: 62.5 %");
}

}  // namespace
}  // namespace pricer
