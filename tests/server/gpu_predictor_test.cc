#include <gmock/gmock.h>

#include <memory>
#include <vector>

#include "model/checkpoint.h"
#include "server/predictor.h"
#include "tests/server/tiny_adapter.h"
#include "tests/testing/emulated_gpu.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/test_gpu.h"
#include "tests/testing/tiny_model.h"

// The predictor on what stands in for a GPU.

namespace pricer {
namespace {

class GpuPredictorTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK(testing::WriteTinyCheckpoint(base_.path()));
    for (int seed : {1, 2}) {
      ASSERT_OK_AND_ASSIGN(testing::TinyAdapter adapter,
                           testing::MakeTinyAdapter(base_.path(), seed));
      adapters_.push_back(std::move(adapter));
    }
    ASSERT_OK_AND_ASSIGN(checkpoint_, Checkpoint::Open(base_.path()));
  }

  std::unique_ptr<Network> LoadBf16(bool keep_nf4) {
    absl::StatusOr<std::unique_ptr<Network>> network = Network::Load(
        *checkpoint_, {.weights = WeightsKind::kNf4, .dtype = at::kBFloat16, .keep_nf4 = keep_nf4});
    EXPECT_OK(network);
    return *std::move(network);
  }

  std::vector<PredictorSequence> Sequences() const {
    std::vector<PredictorSequence> sequences;
    for (const testing::TinyAdapter& adapter : adapters_) {
      for (const std::vector<int32_t>& ids : prompts_)
        sequences.push_back({ids, &adapter, &adapter});
    }
    return sequences;
  }

  const testing::TempDir base_;
  const std::vector<std::vector<int32_t>> prompts_ = {{5, 9, 13}, {40, 41, 42, 43, 44}, {7}};
  std::unique_ptr<Checkpoint> checkpoint_;
  std::vector<testing::TinyAdapter> adapters_;
};

TEST_F(GpuPredictorTest, PricesAsTheCpuDoes) {
  const auto on_cpu = LoadBf16(/*keep_nf4=*/false);
  const BatchPredictor::Results expected = Predictor(on_cpu.get(), 1).PredictBatch(Sequences());
  const EmulatedGpu gpu;
  for (bool keep_nf4 : {false, true}) {
    const auto network = LoadBf16(keep_nf4);
    const BatchPredictor::Results results = Predictor(network.get(), 1).PredictBatch(Sequences());
    ASSERT_EQ(results.size(), expected.size());
    for (size_t i = 0; i < results.size(); ++i) {
      ASSERT_OK(results[i]);
      const double price = expected[i]->Quantile(0.5);
      EXPECT_NEAR(results[i]->Quantile(0.5), price, 0.1 * price) << i;
    }
  }
}

TEST_F(GpuPredictorTest, EndsTheProcessWhereTheGpuCannotBeUsedAnyMore) {
  const EmulatedGpu gpu;
  const auto network = LoadBf16(/*keep_nf4=*/false);
  Predictor predictor(network.get(), 1);
  // Longer than the base's context.
  const std::vector<int32_t> too_long(100000, 5);
  const PredictorSequence sequence{too_long, &adapters_[0], &adapters_[0]};
  EXPECT_EQ(predictor.PredictBatch({&sequence, 1})[0].status().code(), absl::StatusCode::kInternal);
  EXPECT_EXIT(
      {
        EmulatedGpu::Lose();
        predictor.PredictBatch({&sequence, 1});
      },
      ::testing::ExitedWithCode(1), "cannot be used any more");
}

}  // namespace
}  // namespace pricer
