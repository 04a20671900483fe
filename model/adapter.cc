#include "model/adapter.h"

#include <ATen/ATen.h>

#include <cmath>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/file.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "model/json_fields.h"
#include "model/philox.h"
#include "model/safetensors.h"
#include "model/torch_status.h"
#include "model/weights.h"

namespace pricer {
namespace {

constexpr absl::string_view kTensorPrefix = "base_model.model.";
constexpr absl::string_view kScoreName = "base_model.model.score.weight";
// The same head as the modules_to_save wrapper calls it in memory.
constexpr absl::string_view kScoreAliases[] = {
    "base_model.model.score.modules_to_save.weight",
    "base_model.model.score.modules_to_save.default.weight"};
constexpr int64_t kMaxConfigBytes = 4 << 20;
constexpr int64_t kMaxBins = 65536;

using Targets = std::vector<std::vector<PeftConfig::Target>>;

std::string TensorName(int64_t layer, int projection, absl::string_view part) {
  return absl::StrCat(kTensorPrefix, ModulePath(layer, static_cast<Projection>(projection)), ".",
                      part, ".weight");
}

// Float32 [rows, in], uniform in +-1/sqrt(in).
at::Tensor KaimingUniform(int64_t rows, int64_t in, uint32_t module, uint64_t seed) {
  at::Tensor values = at::empty({rows, in}, at::kFloat);
  const float bound = static_cast<float>(1.0 / std::sqrt(static_cast<double>(in)));
  const PhiloxKey key = {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)};
  float* out = values.data_ptr<float>();
  const uint64_t count = values.numel();
  for (uint64_t i = 0; i < count; i += 4) {
    const uint64_t block = i / 4;
    const PhiloxCounter bits = Philox4x32(
        {static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), module, 0}, key);
    for (uint64_t j = 0; j < 4 && i + j < count; ++j) {
      out[i + j] = (2.0f * UniformFloat(bits[j]) - 1.0f) * bound;
    }
  }
  return values;
}

// A name that matches nothing is a slip of whoever asks for a new adapter; PEFT accepts it as long
// as another one does.
absl::Status CheckEveryTarget(const PeftConfig& config, const ModelConfig& model) {
  for (const std::string& module : config.target_modules) {
    PeftConfig single;
    single.task = config.task;
    single.target_modules = {module};
    RETURN_IF_ERROR(single.Targets(model).status());
  }
  return absl::OkStatus();
}

// Takes the tensors of a file one by one, each checked against what is expected.
class TensorTaker {
 public:
  explicit TensorTaker(const SafetensorsFile& file) : file_(file) {
    for (const auto& [name, view] : file.tensors()) left_.insert(name);
  }

  absl::StatusOr<at::Tensor> Take(const std::string& name, const std::vector<int64_t>& shape) {
    const auto found = file_.tensors().find(name);
    if (found == file_.tensors().end()) {
      return Error(name, absl::StrCat("is missing; expected [", absl::StrJoin(shape, ", "), "]"));
    }
    if (found->second.shape != shape) {
      return Error(name, absl::StrCat("expected shape [", absl::StrJoin(shape, ", "), "], got ",
                                      found->second.ToString(), "; wrong base model?"));
    }
    left_.erase(found->first);
    return ToFloat(name, found->second);
  }

  absl::StatusOr<at::Tensor> TakeScore(int64_t hidden_size) {
    std::string name(kScoreName);
    for (const absl::string_view alias : kScoreAliases) {
      if (file_.tensors().count(name) == 0) name = std::string(alias);
    }
    const auto found = file_.tensors().find(name);
    if (found == file_.tensors().end()) {
      return Error(kScoreName, absl::StrCat("is missing; expected [bins, ", hidden_size, "]"));
    }
    const std::vector<int64_t>& shape = found->second.shape;
    if (shape.size() != 2 || shape[0] < 2 || shape[0] > kMaxBins) {
      return Error(name, absl::StrCat("expected [2 to ", kMaxBins, " bins, ", hidden_size,
                                      "], got ", found->second.ToString()));
    }
    return Take(name, {shape[0], hidden_size});
  }

  absl::Status CheckNothingLeft() const {
    if (left_.empty()) return absl::OkStatus();
    return Error(*left_.begin(), absl::StrCat("is extra: ", kAdapterConfigFile,
                                              " targets no such module of this base"));
  }

 private:
  absl::Status Error(absl::string_view name, absl::string_view problem) const {
    return absl::DataLossError(
        absl::StrCat(file_.path(), ": tensor ", Quoted(name), ": ", problem));
  }

  absl::StatusOr<at::Tensor> ToFloat(const std::string& name, const TensorView& view) const {
    if (view.dtype != Dtype::kF32 && view.dtype != Dtype::kF16 && view.dtype != Dtype::kBF16) {
      return Error(name, absl::StrCat("expected dtype F32, F16 or BF16, got ", view.ToString()));
    }
    at::Tensor values = ToTensor(view).to(at::kFloat);
    const int64_t finite = at::isfinite(values).sum().item<int64_t>();
    if (finite != values.numel()) {
      return Error(name, absl::StrCat("expected finite values, got ", values.numel() - finite,
                                      " of ", values.numel(), " that are not"));
    }
    return values;
  }

  const SafetensorsFile& file_;
  std::set<absl::string_view> left_;
};

// An upper bound, so that a hostile file cannot fill the memory: fp32 weights, the largest head and
// a generous header.
int64_t MaxTensorFileBytes(const Targets& targets, const ModelConfig& model) {
  int64_t elements = kMaxBins * model.hidden_size;
  for (const std::vector<PeftConfig::Target>& layer : targets) {
    for (int p = 0; p < kProjectionCount; ++p) {
      const LinearShape shape = ProjectionShape(model, static_cast<Projection>(p));
      elements += layer[p].rank * (shape.in + shape.out);
    }
  }
  return 4 * elements + (16 << 20);
}

absl::StatusOr<AdapterWeights> ReadWeights(const SafetensorsFile& file, const Targets& targets,
                                           const PeftConfig& config, const ModelConfig& model) {
  TensorTaker taker(file);
  AdapterWeights weights;
  weights.layers.assign(model.layer_count, std::vector<LoraWeights>(kProjectionCount));
  for (int64_t layer = 0; layer < model.layer_count; ++layer) {
    for (int p = 0; p < kProjectionCount; ++p) {
      const auto [rank, scale] = targets[layer][p];
      if (rank == 0) continue;
      const LinearShape shape = ProjectionShape(model, static_cast<Projection>(p));
      LoraWeights& lora = weights.layers[layer][p];
      ASSIGN_OR_RETURN(lora.a, taker.Take(TensorName(layer, p, "lora_A"), {rank, shape.in}));
      ASSIGN_OR_RETURN(lora.b, taker.Take(TensorName(layer, p, "lora_B"), {shape.out, rank}));
      lora.scale = scale;
    }
  }
  if (config.task == PeftTask::kSeqCls) {
    ASSIGN_OR_RETURN(weights.score, taker.TakeScore(model.hidden_size));
  }
  RETURN_IF_ERROR(taker.CheckNothingLeft());
  return weights;
}

absl::StatusOr<std::string> ReadChecked(const std::string& directory, absl::string_view name,
                                        int64_t max_bytes,
                                        const std::map<std::string, std::string>& sha256) {
  ASSIGN_OR_RETURN(std::string bytes, ReadAdapterFile(directory, name, max_bytes));
  const auto expected = sha256.find(std::string(name));
  if (expected == sha256.end()) return bytes;
  const std::string digest = Sha256Hex(bytes);
  if (digest == expected->second) return bytes;
  return absl::DataLossError(absl::StrCat(directory, "/", name, ": expected SHA-256 ",
                                          expected->second, ", got ", digest));
}

// Names a tensor and the tensor as fp32 on the CPU, in one piece.
struct NamedValues {
  std::string name;
  at::Tensor values;
};

absl::StatusOr<std::vector<NamedValues>> ValuesToSave(const PeftAdapter& adapter) {
  std::vector<NamedValues> result;
  const AdapterWeights& weights = adapter.weights;
  for (size_t layer = 0; layer < weights.layers.size(); ++layer) {
    for (size_t p = 0; p < weights.layers[layer].size(); ++p) {
      const LoraWeights& lora = weights.layers[layer][p];
      if (!lora.defined()) continue;
      result.push_back({TensorName(layer, p, "lora_A"), lora.a});
      result.push_back({TensorName(layer, p, "lora_B"), lora.b});
    }
  }
  const bool has_head = adapter.config.task == PeftTask::kSeqCls;
  if (has_head) result.push_back({std::string(kScoreName), weights.score});
  for (NamedValues& tensor : result) {
    if (!tensor.values.defined()) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", Quoted(tensor.name), " is missing"));
    }
    tensor.values = tensor.values.detach().to(at::kCPU, at::kFloat).contiguous();
    if (!at::isfinite(tensor.values).all().item<bool>()) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", Quoted(tensor.name), ": expected finite values"));
    }
  }
  return result;
}

}  // namespace

absl::StatusOr<PeftAdapter> MakeAdapter(const PeftConfig& config, const ModelConfig& model,
                                        int bins, uint64_t seed) {
  const bool has_head = config.task == PeftTask::kSeqCls;
  if (has_head && (bins < 2 || bins > kMaxBins)) {
    return absl::InvalidArgumentError(
        absl::StrCat("bins: expected 2 to ", kMaxBins, ", got ", bins));
  }
  PeftAdapter adapter{config, {}};
  std::vector<std::string>& modules = adapter.config.target_modules;
  if (modules == std::vector<std::string>{std::string(kAllLinear)}) {
    modules = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"};
  }
  RETURN_IF_ERROR(CheckEveryTarget(adapter.config, model));
  ASSIGN_OR_RETURN(const Targets targets, adapter.config.Targets(model));
  adapter.weights.layers.assign(model.layer_count, std::vector<LoraWeights>(kProjectionCount));
  for (int64_t layer = 0; layer < model.layer_count; ++layer) {
    for (int p = 0; p < kProjectionCount; ++p) {
      const auto [rank, scale] = targets[layer][p];
      if (rank == 0) continue;
      const LinearShape shape = ProjectionShape(model, static_cast<Projection>(p));
      const uint32_t module = static_cast<uint32_t>(layer * kProjectionCount + p);
      adapter.weights.layers[layer][p] = {KaimingUniform(rank, shape.in, module, seed),
                                          at::zeros({shape.out, rank}, at::kFloat), scale};
    }
  }
  if (has_head) adapter.weights.score = at::zeros({bins, model.hidden_size}, at::kFloat);
  return adapter;
}

absl::StatusOr<PeftAdapter> LoadPeftAdapter(const std::string& directory, const ModelConfig& model,
                                            const std::map<std::string, std::string>& sha256) {
  const std::string config_path = absl::StrCat(directory, "/", kAdapterConfigFile);
  const std::string tensors_path = absl::StrCat(directory, "/", kAdapterTensorsFile);
  ASSIGN_OR_RETURN(const std::string json,
                   ReadChecked(directory, kAdapterConfigFile, kMaxConfigBytes, sha256));
  PeftAdapter adapter;
  ASSIGN_OR_RETURN(adapter.config, PeftConfig::FromJson(json, config_path));
  const absl::StatusOr<Targets> targets = adapter.config.Targets(model);
  if (!targets.ok()) {
    return absl::Status(targets.status().code(),
                        absl::StrCat(config_path, ": ", targets.status().message()));
  }
  ASSIGN_OR_RETURN(std::string bytes, ReadChecked(directory, kAdapterTensorsFile,
                                                  MaxTensorFileBytes(*targets, model), sha256));
  ASSIGN_OR_RETURN(const std::unique_ptr<SafetensorsFile> file,
                   SafetensorsFile::Parse(std::move(bytes), tensors_path));
  ASSIGN_OR_RETURN(adapter.weights, CatchTorch(tensors_path, [&] {
                     return ReadWeights(*file, *targets, adapter.config, model);
                   }));
  return adapter;
}

absl::Status SavePeftAdapter(const PeftAdapter& adapter, const std::string& directory) {
  const std::string path = absl::StrCat(directory, "/", kAdapterTensorsFile);
  ASSIGN_OR_RETURN(const std::vector<NamedValues> values,
                   CatchTorch(path, [&] { return ValuesToSave(adapter); }));
  std::vector<NamedTensor> tensors;
  for (const NamedValues& tensor : values) tensors.push_back({tensor.name, ToView(tensor.values)});
  RETURN_IF_ERROR(WriteSafetensors(path, tensors, {{"format", "pt"}}));
  return WriteFileAtomically(absl::StrCat(directory, "/", kAdapterConfigFile),
                             adapter.config.ToJson());
}

}  // namespace pricer
