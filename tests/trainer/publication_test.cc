#include "trainer/publication.h"

#include <gmock/gmock.h>

#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "model/price_distribution.h"
#include "tests/testing/status_matchers.h"
#include "trainer/calibration.h"

namespace pricer {
namespace {

using testing::StatusIs;

// Prices 10, 11, ... with logits that peak at the right bin.
struct HeldOut {
  Dataset dataset;
  std::vector<std::vector<float>> logits;
  Manifest manifest;
};

HeldOut MakeHeldOut(int count) {
  HeldOut held_out;
  held_out.manifest.bins = {.bins = 32, .min_price = 5.0, .max_price = 200.0, .sigma = 0.75};
  held_out.dataset.path = "validation.jsonl";
  for (int i = 0; i < count; ++i) {
    const double price = 10.0 + (i * 7) % count;
    held_out.dataset.examples.push_back({.ids = {1}, .price = price});
    held_out.dataset.item_ids.push_back(absl::StrCat("id", i));
    held_out.dataset.texts.push_back(absl::StrCat("item of price ", price));
    std::vector<float> row;
    // Systematically 20 % too low, so that intervals have to be widened.
    for (float p : held_out.manifest.bins.Target(price * 0.8)) row.push_back(std::log(p + 1e-4f));
    held_out.logits.push_back(row);
  }
  return held_out;
}

TEST(CalibrateTest, FillsInEverythingFromTheHeldOutItems) {
  HeldOut held_out = MakeHeldOut(60);
  ASSERT_OK(Calibrate(held_out.dataset, held_out.logits, 25.0, &held_out.manifest));
  EXPECT_NE(held_out.manifest.temperature, 1.0);
  EXPECT_EQ(held_out.manifest.conformal.size(), 4u);
  EXPECT_EQ(held_out.manifest.evaluation.at("items"), 60);
  EXPECT_EQ(held_out.manifest.evaluation.at("training_median"), 25.0);
  EXPECT_GT(held_out.manifest.evaluation.at("training_median_mae"),
            held_out.manifest.evaluation.at("mae"));
  EXPECT_EQ(held_out.manifest.golden.size(), static_cast<size_t>(kGoldenItems));
}

TEST(CalibrateTest, GoldenItemsAreWhatTheCalibratedDistributionSays) {
  HeldOut held_out = MakeHeldOut(60);
  ASSERT_OK(Calibrate(held_out.dataset, held_out.logits, 25.0, &held_out.manifest));
  const Manifest& manifest = held_out.manifest;
  for (const GoldenItem& golden : manifest.golden) {
    size_t i = 0;
    while (held_out.dataset.texts[i] != golden.item) ++i;
    ASSERT_OK_AND_ASSIGN(
        const PriceDistribution distribution,
        PriceDistribution::FromLogits(5.0, 200.0, held_out.logits[i], manifest.temperature));
    const PriceInterval interval = distribution.CentralInterval(0.8, manifest.conformal.at("0.8"));
    EXPECT_EQ(golden.price, distribution.Quantile(0.5));
    EXPECT_EQ(golden.low, interval.low);
    EXPECT_EQ(golden.high, interval.high);
  }
}

TEST(CalibrateTest, GoldenItemsSpanThePrices) {
  HeldOut held_out = MakeHeldOut(60);
  ASSERT_OK(Calibrate(held_out.dataset, held_out.logits, 25.0, &held_out.manifest));
  EXPECT_EQ(held_out.manifest.golden.front().item, "item of price 10");
  for (size_t i = 1; i < held_out.manifest.golden.size(); ++i) {
    EXPECT_GT(held_out.manifest.golden[i].price, held_out.manifest.golden[i - 1].price);
  }
  EXPECT_GE(held_out.manifest.golden.back().price, 0.7 * 65);
}

TEST(CalibrateTest, TakesAsFewAsEightItemsAndNoFewer) {
  HeldOut eight = MakeHeldOut(8);
  ASSERT_OK(Calibrate(eight.dataset, eight.logits, 25.0, &eight.manifest));
  EXPECT_EQ(eight.manifest.golden.size(), 8u);
  HeldOut seven = MakeHeldOut(7);
  EXPECT_THAT(Calibrate(seven.dataset, seven.logits, 25.0, &seven.manifest),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       ::testing::HasSubstr("validation.jsonl: 7 items")));
}

TEST(CalibrateTest, RefusesLogitsThatAreNotFinite) {
  HeldOut held_out = MakeHeldOut(8);
  held_out.logits[3][2] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(Calibrate(held_out.dataset, held_out.logits, 25.0, &held_out.manifest),
              StatusIs(absl::StatusCode::kInternal));
}

}  // namespace
}  // namespace pricer
