#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <iostream>

#include "tests/testing/golden.h"
#include "tests/testing/status_matchers.h"
#include "tests/trainer/golden_curve.h"
#include "trainer/trainer.h"
#include "trainer/training_state.h"

namespace pricer {
namespace {

using testing::GoldenJson;
using testing::GoldenOptions;
using testing::GoldenPath;
using testing::GoldenRows;
using testing::GoldenSchedule;
using testing::GoldenStep;
using testing::ReadGoldenRows;

// The loss curves that TRL's SFTTrainer (token head) and transformers' Trainer (bins head) gave
// with the same rows, order and initial tensors.
class LossCurveTest : public ::testing::TestWithParam<std::string> {};

TEST_P(LossCurveTest, EqualsTheReferenceAtEveryStep) {
  const std::string variant = "curves/" + GetParam();
  const std::string folder = variant.substr(0, variant.rfind('/'));
  const nlohmann::json golden = GoldenJson(variant + "/golden.json");
  const nlohmann::json& options = golden.at("options");
  const auto checkpoint = testing::OpenCheckpoint(golden.at("base"));
  const bool nf4 = folder.find("nf4") != std::string::npos;
  const auto network =
      testing::LoadNetwork(*checkpoint, nf4 ? WeightsKind::kNf4 : WeightsKind::kFp32);
  ASSERT_OK_AND_ASSIGN(PeftAdapter initial,
                       LoadPeftAdapter(GoldenPath(folder + "/initial"), checkpoint->config()));
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Trainer> trainer,
                       Trainer::Create(network.get(), std::move(initial), GoldenOptions(options)));
  trainer->set_schedule(GoldenSchedule(options));
  const GoldenRows rows = ReadGoldenRows(golden.at("head"));
  const auto order = golden.at("order").get<std::vector<std::vector<int64_t>>>();
  ASSERT_EQ(order.size(), 50u);
  double largest_loss = 0;
  double largest_norm = 0;
  for (size_t step = 0; step < order.size(); ++step) {
    const nlohmann::json& expected = golden.at("steps")[step];
    ASSERT_OK_AND_ASSIGN(
        const StepResult result,
        trainer->TrainStep(GoldenStep(rows, order[step], options.at("micro_batches"))));
    const double loss = expected.at("loss");
    const double norm = expected.at("gradient_norm");
    EXPECT_NEAR(result.loss, loss, 1e-5 * loss) << "step " << step;
    EXPECT_NEAR(result.gradient_norm, norm, 1e-4 * norm) << "step " << step;
    EXPECT_NEAR(result.learning_rate, expected.at("learning_rate").get<double>(), 1e-12);
    EXPECT_NEAR(result.head_learning_rate, expected.value("head_learning_rate", 0.0), 1e-12);
    largest_loss = std::max(largest_loss, std::abs(result.loss - loss) / loss);
    largest_norm = std::max(largest_norm, std::abs(result.gradient_norm - norm) / norm);
  }
  ASSERT_OK_AND_ASSIGN(const PeftAdapter final_adapter,
                       LoadPeftAdapter(GoldenPath(variant + "/final"), checkpoint->config()));
  const StateTensors tensors_now = NamedTensors(trainer->adapter().weights);
  const StateTensors tensors_then = NamedTensors(final_adapter.weights);
  ASSERT_EQ(tensors_now.size(), tensors_then.size());
  double tensors = 0;
  for (const auto& [name, tensor] : tensors_now) {
    const at::Tensor now = tensor.detach();
    tensors = std::max(tensors, testing::MaxAbsDifference(now, tensors_then.at(name)));
  }
  EXPECT_LT(tensors, 1e-4);
  std::cout << variant << ": loss within " << largest_loss << ", gradient norm within "
            << largest_norm << " (relative), final tensors within " << tensors << std::endl;
}

INSTANTIATE_TEST_SUITE_P(Curves, LossCurveTest,
                         ::testing::Values("token-fp32/1x16", "token-fp32/4x4", "token-nf4/1x16",
                                           "token-nf4/4x4", "bins-fp32/1x16", "bins-fp32/4x4",
                                           "bins-nf4/1x16", "bins-nf4/4x4"),
                         [](const auto& info) {
                           std::string name = info.param;
                           for (char& c : name) {
                             if (c == '-' || c == '/') c = '_';
                           }
                           return name;
                         });

}  // namespace
}  // namespace pricer
