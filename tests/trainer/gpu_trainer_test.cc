#include <gmock/gmock.h>

#include <cmath>
#include <map>
#include <memory>

#include "model/adapter.h"
#include "tests/testing/golden.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/test_gpu.h"
#include "tests/trainer/golden_curve.h"
#include "trainer/gemm_rate.h"
#include "trainer/inference.h"
#include "trainer/trainer.h"
#include "trainer/training_state.h"

// Training steps on a GPU, in bf16.

namespace pricer {
namespace {

using testing::GoldenJson;
using testing::GoldenOptions;
using testing::GoldenPath;
using testing::GoldenRows;
using testing::GoldenSchedule;
using testing::GoldenStep;
using testing::ReadGoldenRows;

class GpuLossCurveTest : public ::testing::TestWithParam<std::string> {};

TEST_P(GpuLossCurveTest, StaysNearTheReferences) {
  const std::string variant = "curves/" + GetParam();
  const std::string folder = variant.substr(0, variant.rfind('/'));
  const nlohmann::json golden = GoldenJson(variant + "/golden.json");
  const nlohmann::json& options = golden.at("options");
  const auto checkpoint = testing::OpenCheckpoint(golden.at("base"));
  const bool nf4 = folder.find("nf4") != std::string::npos;
  ASSERT_OK_AND_ASSIGN(PeftAdapter initial,
                       LoadPeftAdapter(GoldenPath(folder + "/initial"), checkpoint->config()));
  const GoldenRows rows = ReadGoldenRows(golden.at("head"));
  const auto order = golden.at("order").get<std::vector<std::vector<int64_t>>>();
  PRICER_ENTER_GPU(gpu);
  ASSERT_OK_AND_ASSIGN(
      const std::unique_ptr<Network> network,
      Network::Load(*checkpoint, {.weights = nf4 ? WeightsKind::kNf4 : WeightsKind::kFp32,
                                  .dtype = at::kBFloat16,
                                  .device = gpu->device(),
                                  .keep_nf4 = nf4}));
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Trainer> trainer,
                       Trainer::Create(network.get(), std::move(initial), GoldenOptions(options)));
  trainer->set_schedule(GoldenSchedule(options));
  // Whole curves take long on what only stands in for a GPU; there one is enough.
  const bool whole = !gpu->emulated() || GetParam() == "bins-nf4/4x4";
  const size_t steps = whole ? order.size() : 5;
  for (size_t step = 0; step < steps; ++step) {
    ASSERT_OK_AND_ASSIGN(
        const StepResult result,
        trainer->TrainStep(GoldenStep(rows, order[step], options.at("micro_batches"))));
    const double loss = golden.at("steps")[step].at("loss");
    EXPECT_NEAR(result.loss, loss, 0.02 * loss) << "step " << step;
    EXPECT_TRUE(std::isfinite(result.gradient_norm));
  }
}

INSTANTIATE_TEST_SUITE_P(Curves, GpuLossCurveTest,
                         ::testing::Values("token-fp32/4x4", "token-nf4/1x16", "bins-fp32/1x16",
                                           "bins-nf4/4x4"),
                         [](const auto& info) {
                           std::string name = info.param;
                           for (char& c : name) {
                             if (c == '-' || c == '/') c = '_';
                           }
                           return name;
                         });

// A trainer on the GPU and the golden rows.
struct Tuning {
  std::unique_ptr<Checkpoint> checkpoint;
  std::unique_ptr<Network> network;
  std::unique_ptr<Trainer> trainer;
  GoldenRows rows;
};

Tuning MakeTuning(const testing::TestGpu& gpu) {
  const nlohmann::json golden = GoldenJson("curves/bins-nf4/1x16/golden.json");
  Tuning tuning;
  tuning.checkpoint = testing::OpenCheckpoint(golden.at("base"));
  absl::StatusOr<std::unique_ptr<Network>> network =
      Network::Load(*tuning.checkpoint, {.weights = WeightsKind::kNf4,
                                         .dtype = at::kBFloat16,
                                         .device = gpu.device(),
                                         .keep_nf4 = true});
  EXPECT_OK(network);
  tuning.network = *std::move(network);
  absl::StatusOr<PeftAdapter> initial =
      LoadPeftAdapter(GoldenPath("curves/bins-nf4/initial"), tuning.checkpoint->config());
  EXPECT_OK(initial);
  absl::StatusOr<std::unique_ptr<Trainer>> trainer = Trainer::Create(
      tuning.network.get(), *std::move(initial), GoldenOptions(golden.at("options")));
  EXPECT_OK(trainer);
  tuning.trainer = *std::move(trainer);
  tuning.trainer->PlanSteps(8);
  tuning.rows = ReadGoldenRows("bins");
  return tuning;
}

std::vector<MicroBatch> Step(const Tuning& tuning, int64_t first) {
  return GoldenStep(tuning.rows, {first, first + 1, first + 2, first + 3}, 1);
}

TEST(GpuTrainerTest, GoesOnFromItsStateToTheSameBits) {
  PRICER_ENTER_GPU(gpu);
  Tuning whole = MakeTuning(*gpu);
  for (int64_t step = 0; step < 4; ++step) EXPECT_OK(whole.trainer->TrainStep(Step(whole, step)));

  Tuning first = MakeTuning(*gpu);
  for (int64_t step = 0; step < 2; ++step) EXPECT_OK(first.trainer->TrainStep(Step(first, step)));
  StateTensors saved = first.trainer->State();
  for (auto& [name, tensor] : saved) tensor = tensor.detach().cpu().clone();
  Tuning second = MakeTuning(*gpu);
  ASSERT_OK(second.trainer->Restore(saved, 2));
  for (int64_t step = 2; step < 4; ++step) {
    EXPECT_OK(second.trainer->TrainStep(Step(second, step)));
  }
  const StateTensors expected = whole.trainer->State();
  const StateTensors actual = second.trainer->State();
  ASSERT_EQ(actual.size(), expected.size());
  for (const auto& [name, tensor] : expected) {
    EXPECT_TRUE(at::equal(actual.at(name).cpu(), tensor.cpu())) << name;
  }
}

TEST(GpuTrainerTest, NamesWhatMakesALossThatIsNotFinite) {
  PRICER_ENTER_GPU(gpu);
  Tuning tuning = MakeTuning(*gpu);
  std::vector<MicroBatch> step = {Step(tuning, 0)[0], Step(tuning, 4)[0]};
  step[1].targets = step[1].targets * std::numeric_limits<float>::infinity();
  const AdapterWeights before = tuning.trainer->CopyWeights();
  EXPECT_THAT(tuning.trainer->TrainStep(step),
              testing::StatusIs(absl::StatusCode::kInternal, ::testing::HasSubstr("the loss is")));
  EXPECT_THAT(tuning.trainer->failed_rows(), ::testing::ElementsAre(4, 5, 6, 7));
  const AdapterWeights after = tuning.trainer->CopyWeights();
  EXPECT_TRUE(at::equal(before.layers[0][0].a, after.layers[0][0].a));
  EXPECT_OK(tuning.trainer->TrainStep(Step(tuning, 0)));
}

TEST(GpuTrainerTest, MeasuresTheRateOfItsProducts) {
  PRICER_ENTER_GPU(gpu);
  const Tuning tuning = MakeTuning(*gpu);
  ASSERT_OK_AND_ASSIGN(const double rate, MeasureGemmRate(*tuning.network, 64));
  EXPECT_GT(rate, 0);
}

TEST(GpuTrainerTest, ItsTensorsPriceItems) {
  PRICER_ENTER_GPU(gpu);
  Tuning tuning = MakeTuning(*gpu);
  EXPECT_OK(tuning.trainer->TrainStep(Step(tuning, 0)));
  const AdapterWeights weights = tuning.trainer->CopyWeights();
  EXPECT_TRUE(weights.score.is_cpu());
  std::vector<Prompt> prompts;
  for (const Example& example : tuning.rows.examples) prompts.push_back(example.ids);
  ASSERT_OK_AND_ASSIGN(const auto logits,
                       ComputeBinLogits(*tuning.network, weights, prompts, 64,
                                        [](int64_t) { return absl::OkStatus(); }));
  ASSERT_EQ(logits.size(), prompts.size());
  for (const std::vector<float>& row : logits) {
    for (float value : row) EXPECT_TRUE(std::isfinite(value));
  }
}

}  // namespace
}  // namespace pricer
