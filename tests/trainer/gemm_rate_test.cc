#include "trainer/gemm_rate.h"

#include <ATen/Parallel.h>
#include <gmock/gmock.h>

#include "tests/testing/golden.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/tiny_model.h"

namespace pricer {
namespace {

using testing::TempDir;

class GemmRateTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK(testing::WriteTinyCheckpoint(dir_.path()));
    ASSERT_OK_AND_ASSIGN(checkpoint_, Checkpoint::Open(dir_.path()));
    network_ = testing::LoadNetwork(*checkpoint_, WeightsKind::kFp32);
  }

  TempDir dir_;
  std::unique_ptr<Checkpoint> checkpoint_;
  std::unique_ptr<Network> network_;
};

TEST_F(GemmRateTest, TheProductsAreThoseOfTheNetworksLinears) {
  LinearProducts products(network_->Linears());
  products.SetRows(48);
  EXPECT_EQ(products.layers(), 2);
  const auto parameters = static_cast<double>(network_->config().LinearParameterCount()) / 2;
  EXPECT_EQ(products.flops(48, /*backward=*/false), 2 * parameters * 48);
  EXPECT_EQ(products.flops(48, /*backward=*/true), 4 * parameters * 48);
  // q, k, v; o; gate, up; down.
  EXPECT_THAT(products.Run(1, /*backward=*/true),
              ::testing::AllOf(::testing::SizeIs(4), ::testing::Each(::testing::Gt(0))));
}

TEST_F(GemmRateTest, IsBetweenWhatAnyAndWhatNoProcessorReaches) {
  for (const int64_t rows : {1, 64, 1 << 30}) {
    ASSERT_OK_AND_ASSIGN(const double rate, MeasureGemmRate(*network_, rows));
    EXPECT_GT(rate, 1e6) << rows;
    EXPECT_LT(rate, 1e15) << rows;
  }
}

TEST_F(GemmRateTest, ChangesNothing) {
  const PackedBatch batch = testing::PackAll({{5, 6, 7, 8}});
  const at::Tensor before = network_->Forward(batch, {});
  at::manual_seed(5);
  const at::Tensor drawn = at::rand({4});
  at::manual_seed(5);
  const int threads = at::get_num_threads();
  ASSERT_OK(MeasureGemmRate(*network_, 64));
  EXPECT_TRUE(at::equal(at::rand({4}), drawn));
  EXPECT_EQ(at::get_num_threads(), threads);
  EXPECT_TRUE(at::equal(network_->Forward(batch, {}), before));
}

}  // namespace
}  // namespace pricer
