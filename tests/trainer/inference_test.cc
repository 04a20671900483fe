#include "trainer/inference.h"

#include <gmock/gmock.h>

#include "model/adapter.h"
#include "tests/testing/golden.h"
#include "tests/testing/status_matchers.h"

namespace pricer {
namespace {

using testing::GoldenJson;
using testing::GoldenPath;
using testing::GoldenTensors;
using testing::StatusIs;

constexpr char kAdapter[] = "adapters/seqcls-all-linear";

class InferenceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const nlohmann::json golden = GoldenJson(std::string(kAdapter) + "/golden.json");
    sequences_ = testing::GoldenSequences(golden);
    for (const std::vector<int32_t>& ids : sequences_) prompts_.push_back(ids);
    checkpoint_ = testing::OpenCheckpoint(golden.at("base"));
    network_ = testing::LoadNetwork(*checkpoint_, WeightsKind::kFp32);
    ASSERT_OK_AND_ASSIGN(adapter_, LoadPeftAdapter(GoldenPath(kAdapter), checkpoint_->config()));
  }

  std::vector<std::vector<int32_t>> sequences_;
  std::vector<Prompt> prompts_;
  std::unique_ptr<Checkpoint> checkpoint_;
  std::unique_ptr<Network> network_;
  PeftAdapter adapter_;
};

TEST_F(InferenceTest, BinLogitsEqualPeftWhateverTheBatches) {
  const at::Tensor expected =
      GoldenTensors(std::string(kAdapter) + "/golden.safetensors").Get("bin_logits");
  for (int64_t batch_tokens : {1, 40, 100000}) {
    std::vector<int64_t> seen;
    const auto observe = [&](int64_t done) {
      seen.push_back(done);
      return absl::OkStatus();
    };
    ASSERT_OK_AND_ASSIGN(const auto logits, ComputeBinLogits(*network_, adapter_.weights, prompts_,
                                                             batch_tokens, observe));
    ASSERT_EQ(logits.size(), prompts_.size());
    for (size_t i = 0; i < logits.size(); ++i) {
      EXPECT_LE(testing::MaxAbsDifference(at::tensor(logits[i]), expected[i]), 1e-4)
          << "prompt " << i << ", batches of " << batch_tokens;
    }
    EXPECT_EQ(seen.back(), static_cast<int64_t>(prompts_.size()));
    EXPECT_EQ(seen.size(), batch_tokens == 100000 ? 1u : batch_tokens == 1 ? 5u : seen.size());
  }
}

TEST_F(InferenceTest, ForEachBatchHandsOutConsecutiveRows) {
  std::vector<int64_t> firsts;
  std::vector<int64_t> sizes;
  const auto consume = [&](int64_t first, const at::Tensor& hidden) {
    firsts.push_back(first);
    sizes.push_back(hidden.size(0));
    EXPECT_FALSE(hidden.requires_grad());
    return absl::OkStatus();
  };
  // Lengths are 1, 2, 7, 33 and 100.
  ASSERT_OK(ForEachBatch(*network_, nullptr, prompts_, 43, consume));
  EXPECT_THAT(firsts, ::testing::ElementsAre(0, 4));
  EXPECT_THAT(sizes, ::testing::ElementsAre(4, 1));
}

TEST_F(InferenceTest, AnErrorOfTheObserverEndsThePass) {
  int calls = 0;
  const auto observe = [&](int64_t) -> absl::Status {
    ++calls;
    return absl::CancelledError("enough");
  };
  EXPECT_THAT(ComputeBinLogits(*network_, adapter_.weights, prompts_, 1, observe),
              StatusIs(absl::StatusCode::kCancelled));
  EXPECT_EQ(calls, 1);
}

TEST(RowsOfTest, CopiesAMatrixRowByRow) {
  const at::Tensor matrix = at::tensor({1.0f, 2.0f, 3.0f, 4.0f}).view({2, 2}).t();
  EXPECT_THAT(RowsOf(matrix), ::testing::ElementsAre(::testing::ElementsAre(1.0f, 3.0f),
                                                     ::testing::ElementsAre(2.0f, 4.0f)));
}

}  // namespace
}  // namespace pricer
