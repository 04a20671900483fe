#include "model/token_head.h"

#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>

#include <algorithm>
#include <iostream>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "model/tokenizer.h"
#include "tests/testing/golden.h"
#include "tests/testing/status_matchers.h"

namespace pricer {
namespace {

using testing::GoldenJson;
using testing::GoldenPath;
using testing::GoldenTensors;

// A tiny model whose prices transformers has enumerated, teacher-forced, one by one.
struct GoldenPrices {
  explicit GoldenPrices(const std::string& folder)
      : checkpoint(testing::OpenCheckpoint(folder)),
        network(testing::LoadNetwork(*checkpoint, WeightsKind::kFp32)),
        ids(GoldenJson(folder + "/golden.json").at("ids").get<decltype(ids)>()),
        prompts(GoldenJson(folder + "/golden.json").at("prompts").get<decltype(prompts)>()),
        golden(folder + "/golden.safetensors") {
    auto read = Tokenizer::FromDirectory(GoldenPath(folder));
    EXPECT_OK(read);
    tokenizer = *std::move(read);
  }

  absl::StatusOr<std::vector<PriceTree::Result>> Read(const PriceTokens& tokens,
                                                      double prune) const {
    std::vector<PackedSequence> sequences;
    std::vector<TokenReading> readings;
    for (const std::vector<int32_t>& prompt : ids) {
      readings.push_back({static_cast<int64_t>(sequences.size()), &tokens});
      sequences.push_back({.ids = prompt});
    }
    KvCache cache;
    const at::Tensor hidden = network->Forward(Pack(sequences), {}, &cache);
    return ReadTokenPrices(*network, hidden, {}, readings, &cache, prune);
  }

  std::unique_ptr<Checkpoint> checkpoint;
  std::unique_ptr<Network> network;
  std::unique_ptr<Tokenizer> tokenizer;
  std::vector<std::vector<int32_t>> ids;
  std::vector<std::string> prompts;
  GoldenTensors golden;
};

double Sum(const PriceTree::Result& result) {
  return std::accumulate(result.prices.begin(), result.prices.end(), 0.0) + result.pruned +
         result.overflow + result.not_a_price;
}

class TokenHeadGoldenTest : public ::testing::TestWithParam<std::string> {};

TEST_P(TokenHeadGoldenTest, PricesEqualTheReferencesEnumeration) {
  const GoldenPrices model("token_prices/" + GetParam());
  ASSERT_OK_AND_ASSIGN(const PriceTokens tokens,
                       PriceTokens::Probe(*model.tokenizer, model.prompts[1]));
  EXPECT_EQ(tokens.kind,
            GetParam() == "whole" ? PriceTokens::Kind::kWhole : PriceTokens::Kind::kDigits);
  ASSERT_OK_AND_ASSIGN(const auto results, model.Read(tokens, /*prune=*/0));
  ASSERT_EQ(results.size(), model.prompts.size());
  double largest = 0;
  for (size_t i = 0; i < results.size(); ++i) {
    const at::Tensor expected = model.golden.Get("probabilities")[i];
    for (int n = 0; n < kWholePriceCount; ++n) {
      largest = std::max(largest, std::abs(results[i].prices[n] - expected[n].item<double>()));
    }
    EXPECT_NEAR(results[i].overflow, model.golden.Get("overflow")[i].item<double>(), 1e-5);
    EXPECT_NEAR(results[i].not_a_price, model.golden.Get("not_a_price")[i].item<double>(), 1e-5);
    EXPECT_EQ(results[i].pruned, 0);
    EXPECT_NEAR(Sum(results[i]), 1.0, 1e-9);
  }
  std::cout << GetParam() << ": prices within " << largest << std::endl;
  EXPECT_LT(largest, 1e-5);
}

INSTANTIATE_TEST_SUITE_P(All, TokenHeadGoldenTest, ::testing::Values("digits", "whole"),
                         [](const auto& info) { return info.param; });

TEST(TokenHeadTest, APrunedPriceLacksLessThanTheLimit) {
  const GoldenPrices model("token_prices/digits");
  ASSERT_OK_AND_ASSIGN(const PriceTokens tokens,
                       PriceTokens::Probe(*model.tokenizer, model.prompts[1]));
  ASSERT_OK_AND_ASSIGN(const auto results, model.Read(tokens, /*prune=*/1e-3));
  for (size_t i = 0; i < results.size(); ++i) {
    const at::Tensor expected = model.golden.Get("probabilities")[i];
    EXPECT_GT(results[i].pruned, 0);
    EXPECT_NEAR(Sum(results[i]), 1.0, 1e-9);
    for (int n = 0; n < kWholePriceCount; ++n) {
      const double lacking = expected[n].item<double>() - results[i].prices[n];
      EXPECT_GT(lacking, -1e-5) << n;
      EXPECT_LT(lacking, 1e-3) << n;
    }
  }
}

TEST(TokenHeadTest, ALimitAboveAllMassesReadsNothing) {
  const GoldenPrices model("token_prices/digits");
  ASSERT_OK_AND_ASSIGN(const PriceTokens tokens,
                       PriceTokens::Probe(*model.tokenizer, model.prompts[1]));
  ASSERT_OK_AND_ASSIGN(const auto results, model.Read(tokens, /*prune=*/1));
  EXPECT_NEAR(results[0].pruned + results[0].not_a_price, 1.0, 1e-9);
}

// Whole prices, digits and no reading at all in one batch.
TEST(TokenHeadTest, ReadsSomeSequencesOfABatch) {
  const GoldenPrices model("token_prices/digits");
  ASSERT_OK_AND_ASSIGN(const PriceTokens digits,
                       PriceTokens::Probe(*model.tokenizer, model.prompts[1]));
  PriceTokens whole;
  whole.kind = PriceTokens::Kind::kWhole;
  // Any thousand tokens do here.
  for (int32_t n = 0; n < kWholePriceCount; ++n) {
    whole.ids.push_back(n % static_cast<int32_t>(model.checkpoint->config().vocabulary_size));
  }
  KvCache cache;
  const at::Tensor hidden = model.network->Forward(
      Pack({{model.ids[0]}, {model.ids[1]}, {model.ids[2]}, {model.ids[3]}}), {}, &cache);
  ASSERT_OK_AND_ASSIGN(
      const auto results,
      ReadTokenPrices(*model.network, hidden, {}, {{0, &digits}, {2, &whole}, {3, &digits}}, &cache,
                      /*prune=*/0));
  ASSERT_EQ(results.size(), 3u);
  for (const auto& [result, prompt] : {std::pair{0, 0}, std::pair{2, 3}}) {
    const at::Tensor expected = model.golden.Get("probabilities")[prompt];
    for (int n = 0; n < kWholePriceCount; n += 7) {
      EXPECT_NEAR(results[result].prices[n], expected[n].item<double>(), 1e-5);
    }
  }
  EXPECT_EQ(results[1].overflow, 0);
}

TEST(TokenHeadTest, WhatIsNotFiniteIsAnErrorThatNamesTheSequence) {
  const GoldenPrices model("token_prices/digits");
  ASSERT_OK_AND_ASSIGN(const PriceTokens tokens,
                       PriceTokens::Probe(*model.tokenizer, model.prompts[1]));
  KvCache cache;
  at::Tensor hidden = model.network->Forward(Pack({{model.ids[0]}, {model.ids[1]}}), {}, &cache);
  hidden[1].fill_(NAN);
  EXPECT_THAT(
      ReadTokenPrices(*model.network, hidden, {}, {{0, &tokens}, {1, &tokens}}, &cache),
      testing::StatusIs(absl::StatusCode::kInvalidArgument, ::testing::HasSubstr("sequence 1")));
}

}  // namespace
}  // namespace pricer
