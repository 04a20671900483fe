#include "server/predictor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "model/checkpoint.h"
#include "tests/server/tiny_adapter.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/tiny_model.h"

namespace pricer {
namespace {

using ::testing::DoubleNear;
using ::testing::HasSubstr;
using testing::MakeTinyAdapter;
using testing::StatusIs;
using testing::TempDir;

class PredictorTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK(testing::WriteTinyCheckpoint(base_.path()));
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
  PriceDistribution Alone(const std::vector<int32_t>& ids, const ModelAdapter& adapter) {
    const PredictorSequence sequence{ids, &adapter};
    return *predictor_->PredictBatch({&sequence, 1})[0];
  }

  TempDir base_;
  std::unique_ptr<Network> network_;
  ModelAdapter first_;
  ModelAdapter second_;
  std::unique_ptr<Predictor> predictor_;
};

void ExpectSame(const PriceDistribution& got, const PriceDistribution& expected) {
  ASSERT_EQ(got.bin_count(), expected.bin_count());
  for (int i = 0; i < got.bin_count(); ++i) {
    EXPECT_THAT(got.probabilities()[i], DoubleNear(expected.probabilities()[i], 1e-5));
  }
}

TEST_F(PredictorTest, ABatchOfTwoAdaptersGivesEachSequenceItsOwnAnswer) {
  const std::vector<std::vector<int32_t>> ids = {Ids(5, 1), Ids(40, 2), Ids(1, 3), Ids(17, 4)};
  const std::vector<const ModelAdapter*> adapters = {&first_, &first_, &second_, &second_};
  std::vector<PredictorSequence> sequences;
  for (size_t i = 0; i < ids.size(); ++i) sequences.push_back({ids[i], adapters[i]});
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
  const std::vector<PredictorSequence> sequences = {{ids, &first_}, {ids, &second_}};
  const auto results = predictor_->PredictBatch(sequences);
  EXPECT_OK(results[0]);
  EXPECT_THAT(results[1], StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST_F(PredictorTest, WhatTheTensorLibraryThrowsBecomesAStatusOfEverySequence) {
  // A head for another width.
  second_.weights.score = at::zeros({16, 7});
  const std::vector<int32_t> ids = Ids(5, 1);
  const std::vector<PredictorSequence> sequences = {{ids, &first_}, {ids, &second_}};
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
