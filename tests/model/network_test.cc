#include "model/network.h"

#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>

#include <iostream>
#include <numeric>
#include <set>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "model/adapter.h"
#include "model/nf4.h"
#include "model/torch_status.h"
#include "tests/testing/golden.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"

namespace pricer {
namespace {

using testing::GoldenJson;
using testing::GoldenPath;
using testing::GoldenSequences;
using testing::GoldenTensors;
using testing::LoadNetwork;
using testing::MaxAbsDifference;
using testing::OpenCheckpoint;
using testing::PackAll;
using testing::StatusIs;
using testing::TempDir;

// Prints the figure so that a run documents how near the reference is.
void ExpectNear(const std::string& what, const at::Tensor& ours, const at::Tensor& reference,
                double tolerance) {
  const double difference = MaxAbsDifference(ours, reference);
  std::cout << what << ": max abs difference " << difference << std::endl;
  EXPECT_LE(difference, tolerance) << what;
}

PeftAdapter LoadAdapter(const std::string& relative, const ModelConfig& config) {
  absl::StatusOr<PeftAdapter> adapter = LoadPeftAdapter(GoldenPath(relative), config);
  EXPECT_OK(adapter);
  return *std::move(adapter);
}

class NetworkGoldenModelTest : public ::testing::TestWithParam<std::string> {};

TEST_P(NetworkGoldenModelTest, LastLogitsAndHiddenStatesEqualTransformers) {
  const at::NoGradGuard no_grad;
  const std::string folder = "models/" + GetParam();
  const auto checkpoint = OpenCheckpoint(folder);
  const auto network = LoadNetwork(*checkpoint, WeightsKind::kFp32);
  const GoldenTensors golden(folder + "/golden.safetensors");
  const auto sequences = GoldenSequences(GoldenJson(folder + "/golden.json"));
  const at::Tensor hidden = network->Forward(PackAll(sequences), {});
  ExpectNear(folder + " hidden", hidden, golden.Get("last_hidden"), 1e-4);
  ExpectNear(folder + " logits", network->Logits(hidden), golden.Get("last_logits"), 1e-4);
}

INSTANTIATE_TEST_SUITE_P(All, NetworkGoldenModelTest,
                         ::testing::Values("gqa", "tied", "mqa", "llama3-rope", "rope-v4", "odd",
                                           "sharded", "bf16"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(NetworkTest, EveryPrefixGivesTheReferencesLogitsAtThatPosition) {
  const at::NoGradGuard no_grad;
  const auto checkpoint = OpenCheckpoint("models/gqa");
  const auto network = LoadNetwork(*checkpoint, WeightsKind::kFp32);
  const GoldenTensors golden("models/gqa/golden.safetensors");
  const std::vector<int32_t> sequence = GoldenSequences(GoldenJson("models/gqa/golden.json"))[3];
  std::vector<std::vector<int32_t>> prefixes;
  for (size_t n = 1; n <= sequence.size(); ++n) {
    prefixes.emplace_back(sequence.begin(), sequence.begin() + n);
  }
  const at::Tensor logits = network->Logits(network->Forward(PackAll(prefixes), {}));
  ExpectNear("all positions", logits, golden.Get("all_logits.3"), 1e-4);
}

TEST(NetworkTest, SeveralAnswersOfASequenceAreWhatItsPrefixesGive) {
  const at::NoGradGuard no_grad;
  const auto checkpoint = OpenCheckpoint("models/gqa");
  const auto network = LoadNetwork(*checkpoint, WeightsKind::kFp32);
  const GoldenTensors golden("models/gqa/golden.safetensors");
  const std::vector<int32_t> sequence = GoldenSequences(GoldenJson("models/gqa/golden.json"))[3];
  const auto tokens = static_cast<int64_t>(sequence.size());
  const at::Tensor expected = golden.Get("all_logits.3");
  for (int64_t answers : {int64_t{2}, int64_t{5}, tokens}) {
    const at::Tensor logits =
        network->Logits(network->Forward(Pack({{sequence, -1, answers}, {sequence, -1, 1}}), {}));
    ASSERT_EQ(logits.size(0), answers + 1);
    ExpectNear(absl::StrCat(answers, " answers"), logits.narrow(0, 0, answers),
               expected.narrow(0, tokens - answers, answers), 1e-4);
    ExpectNear("the other sequence", logits[answers], expected[tokens - 1], 1e-4);
  }
}

// Two sequences of different adapters, two levels of nodes; each node must give what the sequence
// with the path behind it gives.
TEST(NetworkTest, NodesGiveWhatTheirWholeSequencesGive) {
  const at::NoGradGuard no_grad;
  const auto checkpoint = OpenCheckpoint("models/gqa");
  const auto network = LoadNetwork(*checkpoint, WeightsKind::kFp32);
  const PeftAdapter adapter = LoadAdapter("adapters/causal-all-linear", checkpoint->config());
  const AdapterWeights* const weights[] = {&adapter.weights};
  const auto all = GoldenSequences(GoldenJson("models/gqa/golden.json"));
  const std::vector<std::vector<int32_t>> prompts = {all[3], all[1], all[2]};
  const PackedBatch batch = Pack({{prompts[0], -1}, {prompts[1], 0}, {prompts[2], 0}});
  KvCache cache;
  EXPECT_EQ(
      MaxAbsDifference(network->Forward(batch, weights, &cache), network->Forward(batch, weights)),
      0.0);
  const NodeLevel first{.ids = {11, 12, 13}, .offsets = {0, 2, 2, 3}, .ancestors = {}};
  const NodeLevel second{
      .ids = {21, 22, 23, 24}, .offsets = {0, 3, 3, 4}, .ancestors = {{1, 0, 1, 2}}};
  const at::Tensor hidden[] = {network->ForwardNodes(first, weights, &cache),
                               network->ForwardNodes(second, weights, &cache)};
  const auto expect = [&](const at::Tensor& node, size_t prompt, std::vector<int32_t> path) {
    std::vector<int32_t> ids = prompts[prompt];
    ids.insert(ids.end(), path.begin(), path.end());
    const at::Tensor whole = network->Forward(Pack({{ids, prompt == 0 ? -1 : 0}}), weights);
    EXPECT_LE(MaxAbsDifference(node, whole[0]), 2e-5) << prompt << " " << path.back();
  };
  expect(hidden[0][0], 0, {11});
  expect(hidden[0][1], 0, {12});
  expect(hidden[0][2], 2, {13});
  expect(hidden[1][0], 0, {12, 21});
  expect(hidden[1][1], 0, {11, 22});
  expect(hidden[1][2], 0, {12, 23});
  expect(hidden[1][3], 2, {13, 24});
  EXPECT_GT(cache.bytes(), 0);
}

TEST(NetworkTest, APromptMayFillTheContextAndNotMore) {
  const at::NoGradGuard no_grad;
  const auto checkpoint = OpenCheckpoint("models/gqa");
  const auto network = LoadNetwork(*checkpoint, WeightsKind::kFp32);
  const int64_t context = checkpoint->config().context_tokens;
  std::vector<int32_t> ids(context, 5);
  EXPECT_TRUE(at::isfinite(network->Forward(PackAll({{5, 6}, ids}), {})).all().item<bool>());
  ids.push_back(5);
  const absl::Status status = CatchTorch("forward pass", [&] {
    network->Forward(PackAll({{5, 6}, ids}), {});
    return absl::OkStatus();
  });
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kInternal,
                               ::testing::HasSubstr(absl::StrCat("a prompt has ", context + 1,
                                                                 " tokens; the base's context has ",
                                                                 context))));
}

TEST(NetworkTest, Bf16StaysNearTheReferencesBf16) {
  const at::NoGradGuard no_grad;
  const auto checkpoint = OpenCheckpoint("models/bf16");
  const auto network = LoadNetwork(*checkpoint, WeightsKind::kBf16, at::kBFloat16);
  const GoldenTensors golden("models/bf16/golden.safetensors");
  const auto sequences = GoldenSequences(GoldenJson("models/bf16/golden.json"));
  const at::Tensor logits = network->Logits(network->Forward(PackAll(sequences), {}));
  const at::Tensor exact = golden.Get("last_logits");
  // As near to the fp32 answer as the reference's own bf16 is, up to a factor for luck.
  const double theirs = MaxAbsDifference(golden.Get("last_logits_bf16"), exact);
  ExpectNear("bf16 logits", logits, exact, 2 * theirs);
}

TEST(NetworkTest, StoredNf4GivesTheLogitsOfItsDecodedWeights) {
  const at::NoGradGuard no_grad;
  for (const std::string folder : {"nf4/checkpoint", "nf4/checkpoint-plain"}) {
    const auto checkpoint = OpenCheckpoint(folder);
    const auto network = LoadNetwork(*checkpoint, WeightsKind::kNf4);
    const auto sequences = GoldenSequences(GoldenJson(folder + "/golden.json"));
    const at::Tensor logits = network->Logits(network->Forward(PackAll(sequences), {}));
    ExpectNear(folder, logits, GoldenTensors(folder + "/golden.safetensors").Get("last_logits"),
               1e-4);
  }
}

TEST(NetworkTest, QuantizingOnLoadGivesTheSameBitsAsTheStoredNf4) {
  const at::NoGradGuard no_grad;
  const auto stored = OpenCheckpoint("nf4/checkpoint");
  const auto plain = OpenCheckpoint("models/gqa");
  const auto sequences = GoldenSequences(GoldenJson("models/gqa/golden.json"));
  const at::Tensor from_stored =
      LoadNetwork(*stored, WeightsKind::kNf4)->Forward(PackAll(sequences), {});
  const at::Tensor quantized =
      LoadNetwork(*plain, WeightsKind::kNf4)->Forward(PackAll(sequences), {});
  EXPECT_TRUE(at::equal(from_stored, quantized));
}

TEST(NetworkTest, LoadEndsWhereItIsToldToStop) {
  const auto checkpoint = OpenCheckpoint("models/gqa");
  EXPECT_THAT(Network::Load(*checkpoint, {}, [] { return true; }),
              StatusIs(absl::StatusCode::kCancelled));
  EXPECT_OK(Network::Load(*checkpoint, {}, [] { return false; }));
}

// Writes models/gqa as a 4-bit checkpoint: the tensors `quantized` in NF4, the others as they are.
void WriteNf4Copy(const std::string& directory, const std::set<std::string>& quantized) {
  nlohmann::json config = GoldenJson("models/gqa/config.json");
  config["quantization_config"] = {
      {"quant_method", "bitsandbytes"}, {"load_in_4bit", true}, {"bnb_4bit_quant_type", "nf4"}};
  ASSERT_OK(WriteFile(directory + "/config.json", config.dump()));
  const auto source = OpenCheckpoint("models/gqa");
  std::vector<Nf4Serialized> stored;
  std::vector<NamedTensor> tensors;
  for (const auto& [name, view] : source->tensors()) {
    if (quantized.count(name) == 0) {
      tensors.push_back({name, view});
      continue;
    }
    const at::Tensor values = ToTensor(view);
    const absl::Span<const float> span(values.const_data_ptr<float>(), values.numel());
    stored.push_back(SerializeNf4(*QuantizeNf4(span, view.shape, view.dtype)));
    for (const auto& part : stored.back().parts) tensors.push_back({name + part.suffix, part.view});
  }
  ASSERT_OK(WriteSafetensors(directory + "/model.safetensors", tensors, {}));
}

TEST(NetworkTest, AStoredNf4HeadGivesTheLogitsOfItsDecodedWeights) {
  const at::NoGradGuard no_grad;
  const TempDir dir;
  WriteNf4Copy(dir.path(), {"lm_head.weight"});
  ASSERT_OK_AND_ASSIGN(const auto checkpoint, Checkpoint::Open(dir.path()));
  const auto network = LoadNetwork(*checkpoint, WeightsKind::kFp32);
  const auto sequences = GoldenSequences(GoldenJson("models/gqa/golden.json"));
  const at::Tensor hidden = network->Forward(PackAll(sequences), {});
  ASSERT_OK_AND_ASSIGN(const Nf4Tensor stored, checkpoint->ReadNf4("lm_head"));
  at::Tensor head = at::empty(stored.shape, at::kFloat);
  DequantizeNf4(stored, absl::MakeSpan(head.mutable_data_ptr<float>(), head.numel()));
  ExpectNear("NF4 head", network->Logits(hidden), at::linear(hidden, head), 1e-5);
}

TEST(NetworkTest, LinearsThatA4BitCheckpointLeavesAloneAreTakenAsStored) {
  const at::NoGradGuard no_grad;
  const TempDir dir;
  WriteNf4Copy(dir.path(), {"model.layers.0.self_attn.q_proj.weight"});
  ASSERT_OK_AND_ASSIGN(const auto checkpoint, Checkpoint::Open(dir.path()));
  const auto batch = PackAll(GoldenSequences(GoldenJson("models/gqa/golden.json")));
  EXPECT_TRUE(at::equal(LoadNetwork(*checkpoint, WeightsKind::kNf4)->Forward(batch, {}),
                        LoadNetwork(*checkpoint, WeightsKind::kFp32)->Forward(batch, {})));
}

TEST(NetworkTest, AVastContextCostsNoMoreThanTheLongestPrompt) {
  const at::NoGradGuard no_grad;
  const auto load = [](int64_t context_tokens) {
    const TempDir dir;
    WriteNf4Copy(dir.path(), {});
    nlohmann::json config = GoldenJson("models/gqa/config.json");
    config["max_position_embeddings"] = context_tokens;
    EXPECT_OK(WriteFile(dir.File("config.json"), config.dump()));
    return LoadNetwork(**Checkpoint::Open(dir.path()), WeightsKind::kFp32);
  };
  const auto small = load(256);
  const auto vast = load(1 << 30);
  const int64_t row_bytes = small->config().head_dim * static_cast<int64_t>(sizeof(float));
  EXPECT_EQ(vast->weight_bytes() - small->weight_bytes(), (kMaxPromptTokens - 256) * row_bytes);
  const auto batch = PackAll(GoldenSequences(GoldenJson("models/gqa/golden.json")));
  EXPECT_TRUE(at::equal(vast->Forward(batch, {}), small->Forward(batch, {})));
}

class NetworkGoldenAdapterTest : public ::testing::TestWithParam<std::string> {};

TEST_P(NetworkGoldenAdapterTest, AnswersEqualPeft) {
  const at::NoGradGuard no_grad;
  const std::string folder = "adapters/" + GetParam();
  const nlohmann::json golden = GoldenJson(folder + "/golden.json");
  const GoldenTensors tensors(folder + "/golden.safetensors");
  const auto checkpoint = OpenCheckpoint(golden.at("base"));
  const auto network = LoadNetwork(*checkpoint, WeightsKind::kFp32);
  const PeftAdapter adapter = LoadAdapter(folder, checkpoint->config());
  const AdapterWeights* const weights[] = {&adapter.weights};
  const at::Tensor hidden = network->Forward(PackAll(GoldenSequences(golden), 0), weights);
  if (golden.at("task") == "SEQ_CLS") {
    ExpectNear(folder, Network::BinLogits(hidden, adapter.weights.score), tensors.Get("bin_logits"),
               1e-4);
  } else {
    ExpectNear(folder, network->Logits(hidden), tensors.Get("last_logits"), 1e-4);
  }
}

INSTANTIATE_TEST_SUITE_P(All, NetworkGoldenAdapterTest,
                         ::testing::Values("causal-qv", "causal-qkvo", "causal-all-linear",
                                           "causal-regex", "causal-down", "causal-rslora",
                                           "causal-patterns", "causal-layers", "causal-exclude",
                                           "causal-bf16", "causal-tied", "causal-odd",
                                           "seqcls-all-linear", "seqcls-qv", "seqcls-rslora",
                                           "seqcls-nf4"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

// A batch of sequences without adapter and with two different ones.
TEST(NetworkTest, AnAnswerIsTheSameBitsAloneAndInAMixedBatch) {
  const at::NoGradGuard no_grad;
  const auto checkpoint = OpenCheckpoint("models/gqa");
  const auto network = LoadNetwork(*checkpoint, WeightsKind::kNf4);
  const PeftAdapter first = LoadAdapter("adapters/causal-all-linear", checkpoint->config());
  const PeftAdapter second = LoadAdapter("adapters/causal-patterns", checkpoint->config());
  const AdapterWeights* const adapters[] = {&first.weights, &second.weights};
  const auto sequences = GoldenSequences(GoldenJson("models/gqa/golden.json"));

  std::vector<PackedSequence> mixed;
  for (int32_t adapter : {-1, 0, 1}) {
    for (const std::vector<int32_t>& ids : sequences) mixed.push_back({ids, adapter});
  }
  const at::Tensor together = network->Forward(Pack(mixed), adapters);
  for (size_t i = 0; i < mixed.size(); ++i) {
    const at::Tensor alone = network->Forward(Pack({mixed[i]}), adapters);
    EXPECT_TRUE(at::equal(alone[0], together[i]))
        << "sequence of " << mixed[i].ids.size() << " tokens, adapter " << mixed[i].adapter
        << ": max difference " << MaxAbsDifference(alone[0], together[i]);
  }
}

TEST(NetworkTest, DropoutDoesNotDependOnHowABatchIsPacked) {
  const at::NoGradGuard no_grad;
  const auto checkpoint = OpenCheckpoint("models/gqa");
  const auto network = LoadNetwork(*checkpoint, WeightsKind::kFp32);
  const PeftAdapter adapter = LoadAdapter("adapters/causal-all-linear", checkpoint->config());
  const AdapterWeights* const weights[] = {&adapter.weights};
  const auto sequences = GoldenSequences(GoldenJson("models/gqa/golden.json"));
  const auto forward = [&](const std::vector<std::vector<int32_t>>& ids, std::vector<int64_t> rows,
                           int64_t step) {
    const LoraDropout dropout{.probability = 0.3, .seed = 5, .step = step, .rows = std::move(rows)};
    return network->Forward(PackAll(ids, 0), weights, &dropout);
  };
  const at::Tensor together = forward({sequences[2], sequences[3], sequences[2]}, {7, 1, 8}, 3);
  EXPECT_LE(MaxAbsDifference(together[0], forward({sequences[2]}, {7}, 3)[0]), 2e-6);
  EXPECT_LE(MaxAbsDifference(together[1], forward({sequences[3]}, {1}, 3)[0]), 2e-6);
  EXPECT_LE(MaxAbsDifference(together[2], forward({sequences[2]}, {8}, 3)[0]), 2e-6);
  // Another row and another step are other draws.
  EXPECT_GT(MaxAbsDifference(together[0], together[2]), 1e-3);
  EXPECT_GT(MaxAbsDifference(together[1], forward({sequences[3]}, {1}, 4)[0]), 1e-3);
}

TEST(NetworkTest, AnAdapterWithZeroBChangesNothing) {
  const at::NoGradGuard no_grad;
  const auto checkpoint = OpenCheckpoint("models/gqa");
  const auto network = LoadNetwork(*checkpoint, WeightsKind::kFp32);
  PeftConfig config;
  config.task = PeftTask::kCausalLm;
  config.target_modules = {"all-linear"};
  ASSERT_OK_AND_ASSIGN(const PeftAdapter adapter, MakeAdapter(config, checkpoint->config(), 0, 1));
  const AdapterWeights* const weights[] = {&adapter.weights};
  const auto sequences = GoldenSequences(GoldenJson("models/gqa/golden.json"));
  EXPECT_EQ(MaxAbsDifference(network->Forward(PackAll(sequences, 0), weights),
                             network->Forward(PackAll(sequences), {})),
            0.0);
}

// d(sum of hidden * direction) / d(one value), by autograd and by central differences.
void ExpectGradientsOfFiniteDifferences(const LoraDropout* dropout) {
  const auto checkpoint = OpenCheckpoint("models/odd");
  const auto network = LoadNetwork(*checkpoint, WeightsKind::kFp32);
  PeftAdapter adapter = LoadAdapter("adapters/causal-odd", checkpoint->config());
  const AdapterWeights* const weights[] = {&adapter.weights};
  const auto sequences = GoldenSequences(GoldenJson("models/odd/golden.json"));
  const PackedBatch batch = Pack({{sequences[2], 0, 1}, {sequences[3], 0, 3}});
  at::manual_seed(1);
  const at::Tensor direction = at::randn({4, checkpoint->config().hidden_size});
  const auto loss = [&] {
    return (network->Forward(batch, weights, dropout).to(at::kDouble) * direction).sum();
  };
  std::vector<at::Tensor> tensors;
  for (auto& layer : adapter.weights.layers) {
    for (LoraWeights& lora : layer) {
      for (at::Tensor& tensor : {std::ref(lora.a), std::ref(lora.b)}) {
        if (tensor.defined()) tensors.push_back(tensor.set_requires_grad(true));
      }
    }
  }
  ASSERT_FALSE(tensors.empty());
  loss().backward();
  const at::NoGradGuard no_grad;
  for (at::Tensor& tensor : tensors) {
    ASSERT_TRUE(tensor.grad().defined());
    // Along the gradient itself the derivative is its norm, and rounding matters least.
    const at::Tensor unit = tensor.grad() / tensor.grad().norm();
    const double step = 2e-3;
    tensor.add_(unit, step);
    const double above = loss().item<double>();
    tensor.sub_(unit, 2 * step);
    const double below = loss().item<double>();
    tensor.add_(unit, step);
    const double expected = tensor.grad().norm().item<double>();
    EXPECT_NEAR((above - below) / (2 * step), expected, 0.01 * expected + 1e-3) << tensor.sizes();
  }
}

TEST(NetworkTest, GradientsOfEveryAdapterTensorEqualFiniteDifferences) {
  ExpectGradientsOfFiniteDifferences(nullptr);
}

TEST(NetworkTest, GradientsWithDropoutDoToo) {
  const LoraDropout dropout{.probability = 0.2, .seed = 3, .step = 9, .rows = {4, 2}};
  ExpectGradientsOfFiniteDifferences(&dropout);
}

TEST(DeviceTest, IsTheCpuWhereABuildHasNothingElse) {
  EXPECT_EQ(*ParseDevice("cpu"), at::Device(at::kCPU));
  EXPECT_EQ(*ParseDevice("auto"), at::Device(at::kCPU));
  EXPECT_THAT(ParseDevice("cuda"),
              StatusIs(absl::StatusCode::kFailedPrecondition, ::testing::HasSubstr("has no CUDA")));
  EXPECT_THAT(ParseDevice("gpu"),
              StatusIs(absl::StatusCode::kInvalidArgument, ::testing::HasSubstr("got \"gpu\"")));
}

TEST(DeviceTest, AGpuComputesInBf16) {
  const at::Device gpu(at::kCUDA, 0);
  EXPECT_EQ(*ParseComputeDtype("auto", gpu), at::kBFloat16);
  EXPECT_EQ(*ParseComputeDtype("bf16", gpu), at::kBFloat16);
  EXPECT_THAT(ParseComputeDtype("fp32", gpu),
              StatusIs(absl::StatusCode::kInvalidArgument, ::testing::HasSubstr("bf16")));
  EXPECT_EQ(*ParseComputeDtype("fp32", at::kCPU), at::kFloat);
}

}  // namespace
}  // namespace pricer
