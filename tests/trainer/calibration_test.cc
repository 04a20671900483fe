#include "trainer/calibration.h"

#include <gmock/gmock.h>

#include <cmath>
#include <random>

namespace pricer {
namespace {

using ::testing::IsEmpty;

const BinsSpec kBins = {.bins = 4, .min_price = 1.0, .max_price = 16.0, .sigma = 0.75};

// Middle of a bin of kBins, whose edges are 1, 2, 4, 8 and 16.
double MiddleOf(int bin) { return std::pow(2.0, bin + 0.5); }

TEST(NegativeLogLikelihoodTest, EqualsHandComputedNumbers) {
  const std::vector<HeldOutItem> items = {{{0, 0, 0, 0}, 3.0}, {{std::log(2.0f), 0, 0, 0}, 1.5}};
  EXPECT_NEAR(NegativeLogLikelihood(kBins, items, 1.0), 0.5 * (std::log(4.0) - std::log(2.0 / 5.0)),
              1e-6);
}

TEST(NegativeLogLikelihoodTest, CountsPricesOutsideTheRangeToTheEndBins) {
  const std::vector<float> logits = {2, 0, 0, 1};
  const double low = NegativeLogLikelihood(kBins, {{{logits, MiddleOf(0)}}}, 1.0);
  const double high = NegativeLogLikelihood(kBins, {{{logits, MiddleOf(3)}}}, 1.0);
  EXPECT_DOUBLE_EQ(NegativeLogLikelihood(kBins, {{{logits, 0.01}}}, 1.0), low);
  EXPECT_DOUBLE_EQ(NegativeLogLikelihood(kBins, {{{logits, 1000.0}}}, 1.0), high);
  EXPECT_DOUBLE_EQ(NegativeLogLikelihood(kBins, {{{logits, 16.0}}}, 1.0), high);
}

// Logits that are `sharpness` times those the prices were drawn from.
std::vector<HeldOutItem> DrawItems(double sharpness) {
  std::mt19937_64 engine(5);
  std::vector<HeldOutItem> items;
  for (int i = 0; i < 4000; ++i) {
    std::vector<float> logits;
    std::vector<double> weights;
    for (int bin = 0; bin < kBins.bins; ++bin) {
      const double logit = static_cast<double>(engine() % 2000) / 1000.0;
      logits.push_back(static_cast<float>(sharpness * logit));
      weights.push_back(std::exp(logit));
    }
    double draw = static_cast<double>(engine() >> 11) * 0x1p-53;
    draw *= weights[0] + weights[1] + weights[2] + weights[3];
    int bin = 0;
    while (bin < 3 && draw >= weights[bin]) draw -= weights[bin++];
    items.push_back({logits, MiddleOf(bin)});
  }
  return items;
}

TEST(FitTemperatureTest, UndoesLogitsThatAreTooSharpOrTooFlat) {
  EXPECT_NEAR(FitTemperature(kBins, DrawItems(1.0)), 1.0, 0.1);
  EXPECT_NEAR(FitTemperature(kBins, DrawItems(2.0)), 2.0, 0.2);
  EXPECT_NEAR(FitTemperature(kBins, DrawItems(0.5)), 0.5, 0.05);
}

TEST(FitTemperatureTest, FindsTheLowestLossOfAGrid) {
  const std::vector<HeldOutItem> items = DrawItems(1.7);
  const double fitted = NegativeLogLikelihood(kBins, items, FitTemperature(kBins, items));
  for (double temperature = 0.25; temperature <= 4.0; temperature *= 1.05) {
    EXPECT_LE(fitted, NegativeLogLikelihood(kBins, items, temperature) + 1e-7) << temperature;
  }
}

TEST(FitTemperatureTest, StaysWithinItsBounds) {
  const std::vector<HeldOutItem> always_right = {{{5, 0, 0, 0}, 1.5}};
  const std::vector<HeldOutItem> always_wrong = {{{0, 50, 0, 0}, 1.5}};
  EXPECT_NEAR(FitTemperature(kBins, always_right), 0.25, 0.001);
  EXPECT_NEAR(FitTemperature(kBins, always_wrong), 4.0, 0.01);
}

TEST(FitConformalTest, TakesTheRankedDistanceToTheInterval) {
  // Uniform in ln(price) over [1, 100]: the interval of 0.8 is [100^0.1, 100^0.9] = [1.585, 63.1].
  const PriceDistribution distribution(1.0, 100.0, {1.0});
  const double high = std::pow(100.0, 0.9);
  const std::vector<PriceDistribution> distributions(4, distribution);
  const std::vector<double> prices = {high * std::exp(-0.3), high * std::exp(0.1),
                                      high * std::exp(0.2), high * std::exp(-0.1)};
  // ceil(5 * 0.8) = 4th smallest of -0.3, -0.1, 0.1, 0.2; of coverage 0.6 the 3rd is of its own
  // interval.
  const auto offsets = FitConformal(distributions, prices, {0.8});
  ASSERT_EQ(offsets.count("0.8"), 1u);
  EXPECT_NEAR(offsets.at("0.8"), 0.2, 1e-9);
}

TEST(FitConformalTest, LeavesOutCoveragesThatTakeMoreItems) {
  const PriceDistribution distribution(1.0, 100.0, {1.0});
  EXPECT_THAT(FitConformal({distribution, distribution, distribution}, {5, 6, 7}, {0.8}),
              IsEmpty());
  EXPECT_EQ(
      FitConformal({distribution, distribution, distribution}, {5, 6, 7}, {0.5, 0.75, 0.8}).size(),
      2u);
}

TEST(FitConformalTest, GivesTheCoverageOnNewItems) {
  // Distributions that are far too narrow around prices with log-normal noise of 0.5.
  std::mt19937_64 engine(11);
  std::normal_distribution<double> noise(0.0, 0.5);
  const auto draw = [&](int count, std::vector<PriceDistribution>* distributions,
                        std::vector<double>* prices) {
    for (int i = 0; i < count; ++i) {
      distributions->emplace_back(1.0, 10000.0, std::vector<double>{0, 0.1, 0.8, 0.1, 0});
      prices->push_back(100.0 * std::exp(noise(engine)));
    }
  };
  std::vector<PriceDistribution> distributions;
  std::vector<double> prices;
  draw(500, &distributions, &prices);
  const double offset = FitConformal(distributions, prices, {0.8}).at("0.8");
  std::vector<PriceDistribution> fresh;
  std::vector<double> truths;
  draw(4000, &fresh, &truths);
  int covered = 0;
  for (size_t i = 0; i < fresh.size(); ++i) {
    const PriceInterval interval = fresh[i].CentralInterval(0.8, offset);
    if (interval.low <= truths[i] && truths[i] <= interval.high) ++covered;
  }
  EXPECT_NEAR(covered / 4000.0, 0.8, 0.04);
}

}  // namespace
}  // namespace pricer
