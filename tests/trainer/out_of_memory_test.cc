#include <gmock/gmock.h>

#include <memory>
#include <numeric>
#include <vector>

#include "absl/strings/match.h"
#include "model/adapter.h"
#include "tests/testing/counting_allocator.h"
#include "tests/testing/golden.h"
#include "tests/testing/status_matchers.h"
#include "tests/trainer/golden_curve.h"
#include "trainer/trainer.h"
#include "trainer/training_state.h"

// Steps of a trainer whose memory is limited.

namespace pricer {
namespace {

using testing::CountingAllocator;
using testing::GoldenJson;
using testing::GoldenOptions;
using testing::GoldenPath;
using testing::GoldenRows;
using testing::GoldenStep;
using testing::ReadGoldenRows;

class OutOfMemoryTest : public ::testing::Test {
 protected:
  OutOfMemoryTest() : rows_(ReadGoldenRows("bins")) {
    const nlohmann::json golden = GoldenJson("curves/bins-fp32/1x16/golden.json");
    options_ = GoldenOptions(golden.at("options"));
    checkpoint_ = testing::OpenCheckpoint(golden.at("base"));
    network_ = testing::LoadNetwork(*checkpoint_, WeightsKind::kFp32);
    std::vector<int64_t> all(16);
    std::iota(all.begin(), all.end(), 0);
    step_ = GoldenStep(rows_, all, 1);
  }

  std::unique_ptr<Trainer> MakeTrainer() {
    absl::StatusOr<PeftAdapter> initial =
        LoadPeftAdapter(GoldenPath("curves/bins-fp32/initial"), checkpoint_->config());
    EXPECT_OK(initial);
    absl::StatusOr<std::unique_ptr<Trainer>> trainer =
        Trainer::Create(network_.get(), *std::move(initial), options_);
    EXPECT_OK(trainer);
    (*trainer)->PlanSteps(4);
    return *std::move(trainer);
  }

  // Live bytes between steps and at the peak of one.
  struct Memory {
    int64_t before = 0;
    int64_t peak = 0;
  };
  Memory Measure() {
    const std::unique_ptr<Trainer> trainer = MakeTrainer();
    EXPECT_OK(trainer->TrainStep(step_));
    Memory memory{.before = allocator_.live_bytes()};
    allocator_.ResetPeak();
    EXPECT_OK(trainer->TrainStep(step_));
    memory.peak = allocator_.peak_bytes();
    return memory;
  }

  CountingAllocator allocator_;  // outlives all tensors
  const GoldenRows rows_;
  Trainer::Options options_;
  std::unique_ptr<Checkpoint> checkpoint_;
  std::unique_ptr<Network> network_;
  std::vector<MicroBatch> step_;
};

TEST_F(OutOfMemoryTest, HalvesMicroBatchesAndGoesOnWithTheSameResult) {
  const Memory memory = Measure();
  const std::unique_ptr<Trainer> free = MakeTrainer();
  std::vector<StepResult> expected;
  for (int step = 0; step < 3; ++step) {
    absl::StatusOr<StepResult> made = free->TrainStep(step_);
    ASSERT_OK(made);
    expected.push_back(*std::move(made));
  }
  const std::unique_ptr<Trainer> limited = MakeTrainer();
  // Two trainers are there now.
  const int64_t before = allocator_.live_bytes();
  allocator_.SetLimit(before + (memory.peak - memory.before) * 8 / 10);
  for (int step = 0; step < 3; ++step) {
    ASSERT_OK_AND_ASSIGN(const StepResult result, limited->TrainStep(step_));
    EXPECT_NEAR(result.loss, expected[step].loss, 1e-6);
    EXPECT_NEAR(result.gradient_norm, expected[step].gradient_norm,
                1e-5 * expected[step].gradient_norm);
    EXPECT_EQ(result.tokens, expected[step].tokens);
  }
  // Of the gradients' means: AdamW makes whole steps of differences in gradients that are nearly
  // zero, so that tensors themselves may differ in single elements.
  const StateTensors reached = limited->State();
  for (const auto& [name, tensor] : free->State()) {
    if (!absl::EndsWith(name, ".first_moment")) continue;
    const double difference = (reached.at(name) - tensor).norm().item<double>();
    EXPECT_LE(difference, 1e-3 * tensor.norm().item<double>() + 1e-9) << name;
  }
}

TEST_F(OutOfMemoryTest, SaysWhatToLowerWhereHalvesDoNotFitEither) {
  const Memory memory = Measure();
  const std::unique_ptr<Trainer> trainer = MakeTrainer();
  const AdapterWeights before = trainer->CopyWeights();
  allocator_.SetLimit(allocator_.live_bytes() + (memory.peak - memory.before) / 10);
  EXPECT_THAT(trainer->TrainStep(step_),
              testing::StatusIs(absl::StatusCode::kResourceExhausted,
                                ::testing::AllOf(::testing::HasSubstr("training step 0"),
                                                 ::testing::HasSubstr("--micro-batch-tokens"),
                                                 ::testing::HasSubstr("--memory-budget"))));
  allocator_.SetLimit(std::numeric_limits<int64_t>::max());
  EXPECT_TRUE(at::equal(before.score, trainer->CopyWeights().score));
  EXPECT_OK(trainer->TrainStep(step_));
}

}  // namespace
}  // namespace pricer
