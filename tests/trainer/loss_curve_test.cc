#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <iostream>

#include "tests/testing/golden.h"
#include "tests/testing/status_matchers.h"
#include "trainer/loss.h"
#include "trainer/trainer.h"
#include "trainer/training_state.h"

namespace pricer {
namespace {

using testing::GoldenJson;
using testing::GoldenPath;
using testing::GoldenTensors;

// The loss curves that TRL's SFTTrainer (token head) and transformers' Trainer (bins head) gave
// with the same rows, order and initial tensors.
class LossCurveTest : public ::testing::TestWithParam<std::string> {};

Trainer::Options GoldenOptions(const nlohmann::json& json) {
  Trainer::Options options;
  options.learning_rate = json.at("learning_rate");
  options.head_learning_rate = json.value("head_learning_rate", 0.0);
  options.max_gradient_norm = json.at("max_gradient_norm");
  options.adamw.beta1 = json.at("betas")[0];
  options.adamw.beta2 = json.at("betas")[1];
  options.adamw.epsilon = json.at("epsilon");
  options.adamw.weight_decay = json.at("weight_decay");
  return options;
}

LrSchedule GoldenSchedule(const nlohmann::json& json) {
  const std::string name = json.at("schedule");
  LrSchedule schedule;
  schedule.total_steps = json.at("total_steps");
  schedule.warmup_steps = json.at("warmup_steps");
  schedule.kind = *ParseLrScheduleKind(name == "constant_with_warmup" ? "constant" : name);
  return schedule;
}

// The rows of one head, as examples; a bins head's targets are the reference's own.
struct GoldenRows {
  std::vector<Example> examples;
  at::Tensor targets;  // [rows, bins] or undefined
};

GoldenRows ReadGoldenRows(const std::string& head) {
  const GoldenTensors tensors("curves/" + head + "_rows.safetensors");
  const at::Tensor ids = tensors.Get("ids").to(at::kInt).contiguous();
  const at::Tensor offsets = tensors.Get("offsets");
  GoldenRows rows;
  for (int64_t i = 0; i + 1 < offsets.size(0); ++i) {
    const int32_t* const data = ids.const_data_ptr<int32_t>();
    Example& example = rows.examples.emplace_back();
    example.ids.assign(data + offsets[i].item<int64_t>(), data + offsets[i + 1].item<int64_t>());
    if (head != "token") continue;
    example.completion_tokens =
        static_cast<int64_t>(example.ids.size()) - tensors.Get("prompt_lengths")[i].item<int64_t>();
  }
  if (head == "bins") rows.targets = tensors.Get("targets");
  return rows;
}

// The rows of a step in `count` micro-batches of one size.
std::vector<MicroBatch> GoldenStep(const GoldenRows& rows, const std::vector<int64_t>& step,
                                   int64_t count) {
  const int64_t size = static_cast<int64_t>(step.size()) / count;
  std::vector<MicroBatch> micro_batches;
  for (int64_t m = 0; m < count; ++m) {
    const absl::Span<const int64_t> indices = absl::MakeSpan(step).subspan(m * size, size);
    if (!rows.targets.defined()) {
      micro_batches.push_back(MakeTokenMicroBatch(rows.examples, indices));
      continue;
    }
    const BinsSpec bins = {.bins = 2, .min_price = 1, .max_price = 2, .sigma = 1};
    std::vector<Example> priced = rows.examples;
    for (Example& example : priced) example.price = 1;
    micro_batches.push_back(MakeBinsMicroBatch(priced, indices, bins));
    micro_batches.back().targets = rows.targets.index_select(
        0, at::tensor(at::ArrayRef<int64_t>(indices.data(), indices.size()), at::kLong));
  }
  return micro_batches;
}

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
