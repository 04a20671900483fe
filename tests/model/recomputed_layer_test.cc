#include "model/layers/recomputed_layer.h"

#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>

#include <memory>
#include <string>
#include <vector>

#include "model/adapter.h"
#include "model/network.h"
#include "tests/testing/golden.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/tiny_model.h"

namespace pricer {
namespace {

using testing::TempDir;

constexpr int64_t kLayers = 5;
constexpr double kDropout = 0.2;

struct Case {
  std::string name;
  at::ScalarType dtype = at::kFloat;
  std::vector<std::string> modules = {"all-linear"};
  std::vector<int64_t> lora_layers = {};
  bool dropout = false;
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

// What a pass and its gradients come to.
struct Outcome {
  at::Tensor hidden;
  std::vector<at::Tensor> gradients;
};

class RecomputedLayerTest : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    testing::TinyModelOptions options;
    options.layer_count = kLayers;
    options.head_count = 2;
    options.kv_head_count = 1;
    ASSERT_OK(testing::WriteTinyCheckpoint(base_.path(), options));
    ASSERT_OK_AND_ASSIGN(checkpoint_, Checkpoint::Open(base_.path()));
    network_ = testing::LoadNetwork(*checkpoint_, WeightsKind::kNf4, GetParam().dtype);
    for (uint64_t seed : {1, 2}) {
      PeftConfig config;
      config.task = PeftTask::kCausalLm;
      config.r = 4;
      config.target_modules = GetParam().modules;
      config.layers_to_transform = GetParam().lora_layers;
      ASSERT_OK_AND_ASSIGN(PeftAdapter adapter,
                           MakeAdapter(config, checkpoint_->config(), 0, seed));
      // A new adapter's B is zero, and so would the gradients of A be.
      for (at::Tensor& tensor : Tensors(&adapter)) {
        tensor.copy_(at::sin(at::arange(tensor.numel(), at::kFloat) + seed).view_as(tensor) * 0.1);
        tensor.set_requires_grad(true);
      }
      adapters_.push_back(std::move(adapter));
    }
  }

  static std::vector<at::Tensor> Tensors(PeftAdapter* adapter) {
    std::vector<at::Tensor> tensors;
    for (auto& layer : adapter->weights.layers) {
      for (LoraWeights& lora : layer) {
        if (!lora.defined()) continue;
        tensors.push_back(lora.a);
        tensors.push_back(lora.b);
      }
    }
    return tensors;
  }

  // Two micro-batches, one of them with sequences of no, one and another adapter.
  Outcome Run(int64_t recomputed_layers) {
    const AdapterWeights* const weights[] = {&adapters_[0].weights, &adapters_[1].weights};
    const PackedBatch mixed =
        Pack({{Ids(12), -1, 2}, {Ids(40), 0, 1}, {Ids(21), 0, 1}, {Ids(7), 1, 3}});
    const PackedBatch single = Pack({{Ids(33), 0, 2}});
    LoraDropout dropout{
        .probability = GetParam().dropout ? kDropout : 0.0, .seed = 7, .step = 3, .rows = {}};
    Outcome outcome;
    std::vector<at::Tensor> hidden;
    for (const PackedBatch& batch : {mixed, single}) {
      dropout.rows.clear();
      for (int64_t b = 0; b < batch.sequence_count(); ++b) dropout.rows.push_back(10 * b + 1);
      hidden.push_back(network_->Forward(batch, weights, &dropout, recomputed_layers));
      const at::Tensor direction =
          at::cos(at::arange(hidden.back().numel(), at::kFloat)).view_as(hidden.back());
      (hidden.back().to(at::kFloat) * direction).sum().backward();
    }
    outcome.hidden = at::cat(hidden).detach();
    for (PeftAdapter& adapter : adapters_) {
      for (at::Tensor& tensor : Tensors(&adapter)) {
        outcome.gradients.push_back(tensor.grad());
        tensor.mutable_grad() = at::Tensor();
      }
    }
    return outcome;
  }

  static std::vector<int32_t> Ids(int32_t count) {
    std::vector<int32_t> ids;
    for (int32_t i = 0; i < count; ++i) ids.push_back(3 + (31 * i + count) % 250);
    return ids;
  }

  TempDir base_;
  std::unique_ptr<Checkpoint> checkpoint_;
  std::unique_ptr<Network> network_;
  std::vector<PeftAdapter> adapters_;
};

TEST_P(RecomputedLayerTest, StatesAndGradientsAreThoseOfKeptActivationsToTheBit) {
  const Outcome kept = Run(0);
  for (const int64_t recomputed : {int64_t{1}, int64_t{2}, kLayers}) {
    SCOPED_TRACE(recomputed);
    const Outcome again = Run(recomputed);
    EXPECT_TRUE(at::equal(again.hidden, kept.hidden));
    ASSERT_EQ(again.gradients.size(), kept.gradients.size());
    for (size_t i = 0; i < kept.gradients.size(); ++i) {
      ASSERT_TRUE(kept.gradients[i].defined());
      ASSERT_TRUE(again.gradients[i].defined());
      EXPECT_GT(kept.gradients[i].abs().max().item<double>(), 0.0);
      EXPECT_TRUE(at::equal(again.gradients[i], kept.gradients[i])) << "tensor " << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Cases, RecomputedLayerTest,
    ::testing::Values(Case{"fp32"}, Case{.name = "bf16", .dtype = at::kBFloat16},
                      Case{.name = "dropout", .dropout = true},
                      Case{.name = "bf16_dropout", .dtype = at::kBFloat16, .dropout = true},
                      Case{.name = "attention_alone", .modules = {"q_proj", "v_proj"}},
                      // Below layer 2 nothing is trained; above it layer 3 has nothing to train.
                      Case{.name = "some_layers", .lora_layers = {2, 4}, .dropout = true}),
    [](const auto& info) { return info.param.name; });

TEST_P(RecomputedLayerTest, WithoutGradientsNothingIsKept) {
  const at::NoGradGuard no_grad;
  const AdapterWeights* const weights[] = {&adapters_[0].weights};
  const PackedBatch batch = Pack({{Ids(9), 0}});
  const at::Tensor hidden = network_->Forward(batch, weights, nullptr, kLayers);
  EXPECT_FALSE(hidden.requires_grad());
  EXPECT_TRUE(at::equal(hidden, network_->Forward(batch, weights)));
}

}  // namespace
}  // namespace pricer
