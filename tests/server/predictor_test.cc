#include "server/predictor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <limits>
#include <numeric>
#include <vector>

#include "model/checkpoint.h"
#include "model/packed_batch.h"
#include "model/safetensors.h"
#include "tests/server/tiny_adapter.h"
#include "tests/testing/counting_allocator.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/tiny_model.h"

namespace pricer {
namespace {

using ::testing::AllOf;
using ::testing::DoubleNear;
using ::testing::HasSubstr;
using testing::MakeTinyAdapter;
using testing::MakeTinyTokenAdapter;
using testing::StatusIs;
using testing::TempDir;
using testing::TinyAdapter;

// What the test below limits; it outlives all tensors.
testing::CountingAllocator& Allocator() {
  static auto* const allocator = new testing::CountingAllocator;
  return *allocator;
}

class PredictorTest : public ::testing::Test {
 protected:
  void SetUp() override {
    Allocator();
    ASSERT_OK(testing::WriteTinyCheckpoint(base_.path(), {.tied_embeddings = false}));
    ASSERT_OK_AND_ASSIGN(const auto checkpoint, Checkpoint::Open(base_.path()));
    ASSERT_OK_AND_ASSIGN(
        network_, Network::Load(*checkpoint, {.weights = WeightsKind::kFp32, .dtype = at::kFloat}));
    ASSERT_OK_AND_ASSIGN(first_, MakeTinyAdapter(base_.path(), 1));
    ASSERT_OK_AND_ASSIGN(second_, MakeTinyAdapter(base_.path(), 2));
    predictor_ = std::make_unique<Predictor>(network_.get(), 1);
    predictor_->PrepareThread();
  }

  static std::vector<int32_t> Ids(int count, int first) {
    std::vector<int32_t> ids(count);
    for (int i = 0; i < count; ++i) ids[i] = 3 + (first + 7 * i) % 250;
    return ids;
  }
  // Of one sequence alone.
  PriceDistribution Alone(const std::vector<int32_t>& ids, const TinyAdapter& adapter) {
    const PredictorSequence sequence{ids, &adapter, &adapter};
    return *predictor_->PredictBatch({&sequence, 1})[0];
  }

  TempDir base_;
  std::unique_ptr<Network> network_;
  TinyAdapter first_;
  TinyAdapter second_;
  std::unique_ptr<Predictor> predictor_;
};

void ExpectSame(const PriceDistribution& got, const PriceDistribution& expected) {
  ASSERT_EQ(got.bin_count(), expected.bin_count());
  for (int i = 0; i < got.bin_count(); ++i) {
    EXPECT_THAT(got.probabilities()[i], DoubleNear(expected.probabilities()[i], 1e-5));
  }
}

TEST_F(PredictorTest, HalvesABatchThatRunsOutOfMemory) {
  std::vector<std::vector<int32_t>> prompts;
  for (int i = 0; i < 8; ++i) prompts.push_back(Ids(40, i));
  std::vector<PredictorSequence> sequences;
  for (const auto& ids : prompts) sequences.push_back({ids, &first_, &first_});
  const BatchPredictor::Results expected = predictor_->PredictBatch(sequences);
  testing::CountingAllocator& allocator = Allocator();
  allocator.ResetPeak();
  const int64_t before = allocator.live_bytes();
  predictor_->PredictBatch(sequences);
  const int64_t needed = allocator.peak_bytes() - before;

  allocator.SetLimit(before + needed * 8 / 10);
  const BatchPredictor::Results halves = predictor_->PredictBatch(sequences);
  allocator.SetLimit(before + needed / 10);
  const BatchPredictor::Results none = predictor_->PredictBatch(sequences);
  allocator.SetLimit(std::numeric_limits<int64_t>::max());
  ASSERT_EQ(halves.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_OK(halves[i]);
    EXPECT_EQ(halves[i]->Quantile(0.5), expected[i]->Quantile(0.5));
    EXPECT_THAT(none[i], StatusIs(absl::StatusCode::kResourceExhausted,
                                  HasSubstr("lower --max-batch-tokens")));
  }
  EXPECT_OK(predictor_->PredictBatch(sequences)[7]);
}

TEST_F(PredictorTest, ABatchOfTwoAdaptersGivesEachSequenceItsOwnAnswer) {
  const std::vector<std::vector<int32_t>> ids = {Ids(5, 1), Ids(40, 2), Ids(1, 3), Ids(17, 4)};
  const std::vector<const TinyAdapter*> adapters = {&first_, &first_, &second_, &second_};
  std::vector<PredictorSequence> sequences;
  for (size_t i = 0; i < ids.size(); ++i) sequences.push_back({ids[i], adapters[i], adapters[i]});
  const auto results = predictor_->PredictBatch(sequences);
  ASSERT_EQ(results.size(), ids.size());
  for (size_t i = 0; i < ids.size(); ++i) {
    ASSERT_OK(results[i]);
    ExpectSame(*results[i], Alone(ids[i], *adapters[i]));
  }
  // The adapters do differ.
  EXPECT_GT(std::abs(Alone(ids[0], first_).Quantile(0.5) - Alone(ids[0], second_).Quantile(0.5)),
            0.01);
}

TEST_F(PredictorTest, PricesLieInTheManifestsRange) {
  const PriceDistribution distribution = Alone(Ids(9, 1), first_);
  EXPECT_EQ(distribution.min_price(), 5);
  EXPECT_EQ(distribution.max_price(), 500);
  EXPECT_EQ(distribution.bin_count(), 16);
}

TEST_F(PredictorTest, ATemperatureFlattensTheDistribution) {
  const double sharp = Alone(Ids(9, 1), first_).Confidence(50);
  first_.manifest.temperature = 1e6;
  const PriceDistribution flat = Alone(Ids(9, 1), first_);
  for (const double probability : flat.probabilities()) {
    EXPECT_THAT(probability, DoubleNear(1.0 / 16, 1e-4));
  }
  EXPECT_NE(flat.Confidence(50), sharp);
}

TEST_F(PredictorTest, LogitsThatAreNotFiniteFailTheirSequenceAlone) {
  second_.weights.score.fill_(std::numeric_limits<float>::quiet_NaN());
  const std::vector<int32_t> ids = Ids(5, 1);
  const std::vector<PredictorSequence> sequences = {{ids, &first_, &first_},
                                                    {ids, &second_, &second_}};
  const auto results = predictor_->PredictBatch(sequences);
  EXPECT_OK(results[0]);
  EXPECT_THAT(results[1], StatusIs(absl::StatusCode::kInvalidArgument));
}

class TokenPredictorTest : public PredictorTest {
 protected:
  void SetUp() override {
    PredictorTest::SetUp();
    ASSERT_OK_AND_ASSIGN(token_, MakeTinyTokenAdapter(base_.path(), 3));
    ASSERT_OK_AND_ASSIGN(bare_, MakeTinyTokenAdapter(base_.path(), 4));
    for (auto& layer : bare_.weights.layers) layer.assign(layer.size(), LoraWeights());
  }

  // What the network says, asked without a predictor.
  std::vector<double> SharesOf(const std::vector<int32_t>& ids, const PriceTokens& tokens,
                               absl::Span<const AdapterWeights* const> adapters) {
    KvCache cache;
    const at::Tensor hidden =
        network_->Forward(Pack({{ids, adapters.empty() ? -1 : 0}}), adapters, &cache);
    auto results = ReadTokenPrices(*network_, hidden, adapters, {{0, &tokens}}, &cache);
    EXPECT_OK(results);
    std::vector<double> shares = (*results)[0].prices;
    const double sum = std::accumulate(shares.begin(), shares.end(), 0.0);
    for (double& share : shares) share /= sum;
    return shares;
  }

  TinyAdapter token_;
  TinyAdapter bare_;  // the base alone
};

TEST_F(TokenPredictorTest, ReadsThePricesOffTheBasesOwnHead) {
  const std::vector<int32_t> ids = Ids(20, 1);
  const AdapterWeights* const weights = &token_.weights;
  const std::vector<double> with = SharesOf(ids, *token_.tokens, {&weights, 1});
  const std::vector<double> without = SharesOf(ids, *token_.tokens, {});
  const PriceDistribution tuned = Alone(ids, token_);
  const PriceDistribution base = Alone(ids, bare_);
  ASSERT_EQ(tuned.bin_count(), kWholePriceCount);
  double largest = 0;
  for (int n = 0; n < kWholePriceCount; ++n) {
    EXPECT_THAT(tuned.probabilities()[n], DoubleNear(with[n], 1e-7));
    EXPECT_THAT(base.probabilities()[n], DoubleNear(without[n], 1e-7));
    largest = std::max(largest, std::abs(with[n] - without[n]));
  }
  // The adapter does something.
  EXPECT_GT(largest, 1e-4);
}

TEST_F(TokenPredictorTest, ABatchThatMixesHeadsGivesEachSequenceItsOwnAnswer) {
  const std::vector<std::vector<int32_t>> ids = {Ids(5, 1),  Ids(40, 2), Ids(30, 3),
                                                 Ids(17, 4), Ids(22, 5), Ids(9, 6)};
  const std::vector<const TinyAdapter*> adapters = {&token_, &token_,  &first_,
                                                    &bare_,  &second_, &second_};
  std::vector<PredictorSequence> sequences;
  for (size_t i = 0; i < ids.size(); ++i) sequences.push_back({ids[i], adapters[i], adapters[i]});
  const auto results = predictor_->PredictBatch(sequences);
  ASSERT_EQ(results.size(), ids.size());
  for (size_t i = 0; i < ids.size(); ++i) {
    ASSERT_OK(results[i]);
    ExpectSame(*results[i], Alone(ids[i], *adapters[i]));
  }
  EXPECT_EQ(results[2]->bin_count(), 16);
  EXPECT_EQ(results[3]->bin_count(), kWholePriceCount);
}

TEST_F(TokenPredictorTest, PricesThatAreOneTokenEachNeedNoTree) {
  PriceTokens whole;
  whole.kind = PriceTokens::Kind::kWhole;
  // Any tokens do here, though there are too few to tell all prices apart.
  for (int32_t n = 0; n < kWholePriceCount; ++n) whole.ids.push_back(n % 260);
  token_.tokens = std::make_shared<const PriceTokens>(whole);
  token_.tree_rows = nullptr;
  const std::vector<int32_t> ids = Ids(20, 1);
  const AdapterWeights* const weights = &token_.weights;
  const std::vector<double> expected = SharesOf(ids, whole, {&weights, 1});
  const PriceDistribution got = Alone(ids, token_);
  for (int n = 0; n < kWholePriceCount; ++n) {
    EXPECT_THAT(got.probabilities()[n], DoubleNear(expected[n], 1e-7));
  }
}

TEST_F(TokenPredictorTest, LearnsWhatAnItemCosts) {
  ASSERT_EQ(token_.extra_rows(), kWholePriceCount);
  const PriceDistribution distribution = Alone(Ids(20, 1), token_);
  const int64_t nodes =
      std::count_if(distribution.probabilities().begin(), distribution.probabilities().end(),
                    [](double probability) { return probability > 0; });
  EXPECT_EQ(token_.extra_rows(), nodes);
  EXPECT_EQ(bare_.extra_rows(), kWholePriceCount);
}

TEST_F(TokenPredictorTest, ProbabilitiesThatAreNoNumbersFailTheirSequenceAlone) {
  TinyAdapter broken = token_;
  broken.weights = MakeTinyTokenAdapter(base_.path(), 3)->weights;
  for (LoraWeights& lora : broken.weights.layers[0]) {
    if (lora.defined()) lora.b.fill_(std::numeric_limits<float>::quiet_NaN());
  }
  const std::vector<int32_t> ids = Ids(15, 1);
  const auto results = predictor_->PredictBatch({{{ids, &token_, &token_},
                                                  {ids, &broken, &broken},
                                                  {ids, &first_, &first_},
                                                  {ids, &bare_, nullptr}}});
  ASSERT_EQ(results.size(), 4u);
  EXPECT_THAT(results[1], StatusIs(absl::StatusCode::kInternal, HasSubstr("token head")));
  for (const auto& [index, adapter] :
       {std::pair<int, const TinyAdapter*>{0, &token_}, {2, &first_}, {3, &bare_}}) {
    ASSERT_OK(results[index]);
    ExpectSame(*results[index], Alone(ids, *adapter));
  }
}

// Every token but digits and comma has a large row in the head.
void SilenceDigits(const std::string& checkpoint) {
  const std::string path = checkpoint + "/model.safetensors";
  std::vector<NamedTensor> tensors;
  std::string bytes;
  ASSERT_OK_AND_ASSIGN(const auto file, SafetensorsFile::Open(path));
  for (const auto& [name, view] : file->tensors()) {
    tensors.push_back({name, view});
    if (name != "lm_head.weight") continue;
    bytes = std::string(view.data);
    const int64_t width = view.shape[1];
    auto* const values = reinterpret_cast<float*>(bytes.data());
    for (int64_t token = 0; token < view.shape[0]; ++token) {
      const int64_t byte = token - 3;
      if ((byte >= '0' && byte <= '9') || byte == ',') continue;
      for (int64_t i = 0; i < width; ++i) values[token * width + i] *= 1e5F;
    }
    tensors.back().view.data = bytes;
  }
  ASSERT_OK(WriteSafetensors(path + ".new", tensors, {{"format", "pt"}}));
  std::filesystem::rename(path + ".new", path);
}

TEST_F(TokenPredictorTest, AnItemBehindWhichPricesHaveNoMassIsAnError) {
  SilenceDigits(base_.path());
  ASSERT_OK_AND_ASSIGN(const auto checkpoint, Checkpoint::Open(base_.path()));
  ASSERT_OK_AND_ASSIGN(
      const std::unique_ptr<Network> network,
      Network::Load(*checkpoint, {.weights = WeightsKind::kFp32, .dtype = at::kFloat}));
  Predictor predictor(network.get(), 1);
  const std::vector<int32_t> ids = Ids(15, 1);
  const auto results = predictor.PredictBatch({{{ids, &bare_, nullptr}, {ids, &first_, &first_}}});
  EXPECT_THAT(results[0], StatusIs(absl::StatusCode::kFailedPrecondition,
                                   AllOf(HasSubstr("\"tiny\""), HasSubstr("no probability"))));
  EXPECT_OK(results[1]);
}

TEST_F(PredictorTest, WhatTheTensorLibraryThrowsBecomesAStatusOfEverySequence) {
  // A head for another width.
  second_.weights.score = at::zeros({16, 7});
  const std::vector<int32_t> ids = Ids(5, 1);
  const std::vector<PredictorSequence> sequences = {{ids, &first_, &first_},
                                                    {ids, &second_, &second_}};
  const auto results = predictor_->PredictBatch(sequences);
  ASSERT_EQ(results.size(), 2u);
  for (const auto& result : results) {
    EXPECT_THAT(result, StatusIs(absl::StatusCode::kInternal, HasSubstr("batch")));
  }
  // And the next batch is none the worse for it.
  Alone(ids, first_);
}

}  // namespace
}  // namespace pricer
