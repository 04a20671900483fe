#include "model/merge_adapter.h"

#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "base/file.h"
#include "model/network.h"
#include "model/nf4.h"
#include "tests/testing/golden.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/tiny_model.h"

namespace pricer {
namespace {

namespace fs = std::filesystem;

using ::testing::AllOf;
using testing::GoldenJson;
using testing::GoldenPath;
using testing::GoldenTensors;
using ::testing::HasSubstr;
using testing::MaxAbsDifference;
using testing::OpenCheckpoint;
using testing::StatusIs;
using testing::TempDir;
using Json = nlohmann::json;

PeftAdapter LoadAdapter(const std::string& folder, const ModelConfig& model) {
  auto adapter = LoadPeftAdapter(GoldenPath(folder), model);
  EXPECT_OK(adapter);
  return *std::move(adapter);
}

std::vector<std::string> NamesOfBins(const PeftAdapter& adapter) {
  std::vector<std::string> names;
  if (!adapter.weights.score.defined()) return names;
  for (int64_t i = 0; i < adapter.weights.score.size(0); ++i) {
    names.push_back("bin " + std::to_string(i));
  }
  return names;
}

// Random values in all LoRA matrices of the kind.
PeftAdapter RandomAdapter(const ModelConfig& model, std::vector<std::string> modules,
                          PeftTask task = PeftTask::kCausalLm, double deviation = 0.1) {
  PeftConfig config;
  config.task = task;
  config.r = 4;
  config.alpha = 6;
  config.target_modules = std::move(modules);
  PeftAdapter adapter = *MakeAdapter(config, model, /*bins=*/5, /*seed=*/1);
  at::manual_seed(2);
  for (auto& layer : adapter.weights.layers) {
    for (LoraWeights& lora : layer) {
      if (lora.defined()) lora.b = at::randn(lora.b.sizes()) * deviation;
    }
  }
  if (adapter.weights.score.defined()) {
    adapter.weights.score = at::randn(adapter.weights.score.sizes());
  }
  return adapter;
}

class MergeAdapterTest : public ::testing::Test {
 protected:
  MergeAdapterTest() { EXPECT_OK(MakeDirectories(output_)); }

  absl::StatusOr<MergeSummary> Merge(const Checkpoint& base, const PeftAdapter& adapter,
                                     WeightsKind weights, Dtype dtype = Dtype::kF32) const {
    return MergeAdapter(base, adapter,
                        {.weights = weights, .dtype = dtype, .bin_names = NamesOfBins(adapter)},
                        output_);
  }

  std::unique_ptr<Checkpoint> TinyBase(const testing::TinyModelOptions& options = {}) const {
    EXPECT_OK(testing::WriteTinyCheckpoint(dir_.File("base"), options));
    auto base = Checkpoint::Open(dir_.File("base"));
    EXPECT_OK(base);
    return *std::move(base);
  }

  Json OutputConfig() const { return Json::parse(*ReadFile(output_ + "/config.json")); }

  at::Tensor OutputTensor(const std::string& name) const {
    auto file = SafetensorsFile::Open(output_ + "/model.safetensors");
    EXPECT_OK(file);
    return ToTensor((*file)->tensors().at(name));
  }

  const at::NoGradGuard no_grad_;
  const TempDir dir_;
  const std::string output_ = dir_.File("out");
};

class MergeGoldenAdapterTest : public MergeAdapterTest,
                               public ::testing::WithParamInterface<std::string> {};

TEST_P(MergeGoldenAdapterTest, AnswersAsPeftDoesWithBaseAndAdapter) {
  const std::string folder = "adapters/" + GetParam();
  const Json golden = GoldenJson(folder + "/golden.json");
  const auto base = OpenCheckpoint(golden.at("base"));
  const PeftAdapter adapter = LoadAdapter(folder, base->config());
  const bool classifies = adapter.weights.score.defined();
  ASSERT_OK(Merge(*base, adapter, WeightsKind::kFp32));
  ASSERT_OK_AND_ASSIGN(const auto merged,
                       classifies ? Checkpoint::OpenDecoder(output_) : Checkpoint::Open(output_));
  const auto network = testing::LoadNetwork(*merged, WeightsKind::kFp32);
  const at::Tensor hidden =
      network->Forward(testing::PackAll(testing::GoldenSequences(golden)), {});
  const at::Tensor logits = classifies ? Network::BinLogits(hidden, OutputTensor("score.weight"))
                                       : network->Logits(hidden);
  const GoldenTensors tensors(folder + "/golden.safetensors");
  EXPECT_LE(MaxAbsDifference(logits, tensors.Get(classifies ? "bin_logits" : "last_logits")), 1e-4);
}

INSTANTIATE_TEST_SUITE_P(All, MergeGoldenAdapterTest,
                         ::testing::Values("causal-all-linear", "causal-rslora", "causal-patterns",
                                           "causal-layers", "causal-tied", "causal-odd",
                                           "seqcls-all-linear", "seqcls-qv", "seqcls-nf4"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST_F(MergeAdapterTest, AddsTheScaledProductToTheDequantizedBase) {
  const auto base = TinyBase();
  const PeftAdapter adapter = RandomAdapter(base->config(), {"q_proj"});
  ASSERT_OK_AND_ASSIGN(const MergeSummary summary, Merge(*base, adapter, WeightsKind::kNf4));
  EXPECT_EQ(summary.merged, 2);
  const auto dequantized = [&](Projection projection) {
    return *LoadLinearWeight(*base, ModulePath(1, projection), {.weights = WeightsKind::kNf4});
  };
  const LoraWeights& lora = adapter.weights.lora(1, Projection::kQ);
  const at::Tensor expected = dequantized(Projection::kQ).to(at::kDouble) +
                              lora.scale * at::mm(lora.b.to(at::kDouble), lora.a.to(at::kDouble));
  EXPECT_EQ(lora.scale, 1.5);
  EXPECT_LE(MaxAbsDifference(OutputTensor(ModulePath(1, Projection::kQ) + ".weight"), expected),
            1e-6);
  // Layers without LoRA are as the adapter knew them too.
  EXPECT_TRUE(at::equal(OutputTensor(ModulePath(1, Projection::kDown) + ".weight"),
                        dequantized(Projection::kDown)));
  EXPECT_TRUE(at::equal(OutputTensor("model.embed_tokens.weight"),
                        ToTensor(base->tensor("model.embed_tokens.weight"))));
}

TEST_F(MergeAdapterTest, GivesTheSameBytesOnTheStoredNf4FormOfTheBase) {
  const auto plain = OpenCheckpoint("models/gqa");
  const PeftAdapter adapter = LoadAdapter("adapters/seqcls-nf4", plain->config());
  ASSERT_OK(Merge(*plain, adapter, WeightsKind::kNf4));
  const std::string expected = *ReadFile(output_ + "/model.safetensors");
  const Json config = OutputConfig();
  ASSERT_OK(Merge(*OpenCheckpoint("nf4/checkpoint"), adapter, WeightsKind::kNf4));
  EXPECT_TRUE(*ReadFile(output_ + "/model.safetensors") == expected);
  EXPECT_EQ(OutputConfig(), config);
}

TEST_F(MergeAdapterTest, DecodesAQuantizedHead) {
  const auto plain = OpenCheckpoint("models/gqa");
  ASSERT_OK(MakeDirectories(dir_.File("base")));
  Json config = GoldenJson("models/gqa/config.json");
  config["quantization_config"] = {
      {"quant_method", "bitsandbytes"}, {"load_in_4bit", true}, {"bnb_4bit_quant_type", "nf4"}};
  ASSERT_OK(WriteFile(dir_.File("base/config.json"), config.dump()));
  const at::Tensor head = ToTensor(plain->tensor("lm_head.weight"));
  const Nf4Serialized stored =
      SerializeNf4(*QuantizeNf4(absl::MakeConstSpan(head.const_data_ptr<float>(), head.numel()),
                                head.sizes().vec(), Dtype::kF32));
  std::vector<NamedTensor> tensors;
  for (const auto& [name, view] : plain->tensors()) {
    if (name != "lm_head.weight") tensors.push_back({name, view});
  }
  for (const auto& part : stored.parts) {
    tensors.push_back({"lm_head.weight" + part.suffix, part.view});
  }
  ASSERT_OK(WriteSafetensors(dir_.File("base/model.safetensors"), tensors, {}));
  ASSERT_OK_AND_ASSIGN(const auto base, Checkpoint::Open(dir_.File("base")));
  ASSERT_OK(Merge(*base, RandomAdapter(base->config(), {"q_proj"}), WeightsKind::kNf4));
  EXPECT_TRUE(at::equal(OutputTensor("lm_head.weight"), *LoadLinearWeight(*base, "lm_head", {})));
  ASSERT_OK(Checkpoint::Open(output_));
}

TEST_F(MergeAdapterTest, MeasuresWhatRoundingCosts) {
  const auto base = TinyBase();
  const PeftAdapter adapter = RandomAdapter(base->config(), {"v_proj", "down_proj"});
  ASSERT_OK(Merge(*base, adapter, WeightsKind::kFp32, Dtype::kF32));
  std::vector<at::Tensor> exact;
  std::vector<at::Tensor> before;
  for (int64_t layer = 0; layer < 2; ++layer) {
    for (const Projection projection : {Projection::kV, Projection::kDown}) {
      const std::string name = ModulePath(layer, projection) + ".weight";
      exact.push_back(OutputTensor(name).flatten().to(at::kDouble));
      before.push_back(ToTensor(base->tensor(name)).flatten().to(at::kDouble));
    }
  }
  const at::Tensor values = at::cat(exact);
  for (const auto& [dtype, scalar] :
       {std::pair{Dtype::kBF16, at::kBFloat16}, std::pair{Dtype::kF16, at::kHalf}}) {
    ASSERT_OK_AND_ASSIGN(const MergeSummary summary,
                         Merge(*base, adapter, WeightsKind::kFp32, dtype));
    const at::Tensor error = (values.to(at::kFloat).to(scalar).to(at::kDouble) - values).abs();
    const at::Tensor relative = error / values.abs();
    EXPECT_NEAR(summary.max_relative_error, relative.max().item<double>(), 1e-6);
    EXPECT_NEAR(summary.mean_relative_error, relative.mean().item<double>(), 1e-7);
    EXPECT_NEAR(summary.error_of_change,
                (error.norm() / (values - at::cat(before)).norm()).item<double>(), 1e-5);
    EXPECT_GT(summary.error_of_change, 1e-4);
    std::vector<double> largest;
    for (const at::Tensor& x : exact) {
      largest.push_back(((x.to(scalar).to(at::kDouble) - x) / x).abs().max().item<double>());
    }
    const size_t worst = std::max_element(largest.begin(), largest.end()) - largest.begin();
    EXPECT_EQ(summary.worst_module,
              ModulePath(static_cast<int64_t>(worst / 2),
                         worst % 2 == 0 ? Projection::kV : Projection::kDown));
  }
}

TEST_F(MergeAdapterTest, RoundsEveryTensorOnceAlsoBeyondOneSlice) {
  const auto base =
      TinyBase({.hidden_size = 512, .ffn_size = 8400, .layer_count = 1, .vocabulary_size = 9000});
  const PeftAdapter adapter = RandomAdapter(base->config(), {"up_proj"});
  ASSERT_OK(Merge(*base, adapter, WeightsKind::kFp32, Dtype::kBF16));
  const LoraWeights& lora = adapter.weights.lora(0, Projection::kUp);
  for (const auto& [name, view] : base->tensors()) {
    at::Tensor expected = ToTensor(view);
    if (name == ModulePath(0, Projection::kUp) + ".weight") {
      expected = expected + at::mm(lora.b * lora.scale, lora.a);
    }
    const at::Tensor written = OutputTensor(name);
    EXPECT_EQ(written.scalar_type(), at::kBFloat16);
    EXPECT_TRUE(at::equal(written, expected.to(at::kBFloat16))) << name;
  }
}

TEST_F(MergeAdapterTest, AClassifierHasItsScoreAndLabelsAndNoHead) {
  const auto base = OpenCheckpoint("models/gqa");
  const PeftAdapter adapter = RandomAdapter(base->config(), {"q_proj"}, PeftTask::kSeqCls);
  ASSERT_OK(Merge(*base, adapter, WeightsKind::kNf4, Dtype::kBF16));
  ASSERT_OK_AND_ASSIGN(const auto file, SafetensorsFile::Open(output_ + "/model.safetensors"));
  EXPECT_EQ(file->tensors().count("lm_head.weight"), 0u);
  EXPECT_EQ(file->tensors().at("score.weight").ToString(), "F32 [5, 64]");
  EXPECT_EQ(file->tensors().at("model.norm.weight").dtype, Dtype::kBF16);
  EXPECT_TRUE(at::equal(OutputTensor("score.weight"), adapter.weights.score));
  const Json config = OutputConfig();
  EXPECT_EQ(config.at("architectures"), Json({"LlamaForSequenceClassification"}));
  EXPECT_EQ(config.at("torch_dtype"), "bfloat16");
  EXPECT_EQ(config.at("id2label").size(), 5u);
  EXPECT_EQ(config.at("id2label").at("3"), "bin 3");
  EXPECT_EQ(config.at("label2id").at("bin 3"), 3);
  EXPECT_EQ(config.at("pad_token_id"), 0);
}

TEST_F(MergeAdapterTest, AClassifierPadsWithTheEndTokenWhereTheBaseHasNoOther) {
  TinyBase();
  Json config = Json::parse(*ReadFile(dir_.File("base/config.json")));
  config["pad_token_id"] = nullptr;
  ASSERT_OK(WriteFile(dir_.File("base/config.json"), config.dump()));
  ASSERT_OK_AND_ASSIGN(const auto base, Checkpoint::Open(dir_.File("base")));
  ASSERT_OK(Merge(*base, RandomAdapter(base->config(), {"q_proj"}, PeftTask::kSeqCls),
                  WeightsKind::kNf4));
  EXPECT_EQ(OutputConfig().at("pad_token_id"), 2);
  EXPECT_TRUE(fs::exists(output_ + "/tokenizer.json"));
}

TEST_F(MergeAdapterTest, NamesFileAndTensorOfWhatDoesNotFitTheDtype) {
  const auto base = TinyBase();
  const PeftAdapter adapter =
      RandomAdapter(base->config(), {"k_proj"}, PeftTask::kCausalLm, /*deviation=*/1e7);
  EXPECT_THAT(
      Merge(*base, adapter, WeightsKind::kFp32, Dtype::kF16),
      StatusIs(absl::StatusCode::kInvalidArgument,
               AllOf(HasSubstr("base/model.safetensors"),
                     HasSubstr("model.layers.0.self_attn.k_proj.weight"), HasSubstr("F16"))));
  EXPECT_OK(Merge(*base, adapter, WeightsKind::kFp32, Dtype::kBF16));
}

TEST_F(MergeAdapterTest, EndsWhereItIsCancelled) {
  const auto base = TinyBase();
  const PeftAdapter adapter = RandomAdapter(base->config(), {"k_proj"});
  int asked = 0;
  EXPECT_THAT(MergeAdapter(*base, adapter, {}, output_, [&] { return ++asked == 5; }),
              StatusIs(absl::StatusCode::kCancelled));
  EXPECT_EQ(asked, 5);
}

}  // namespace
}  // namespace pricer
