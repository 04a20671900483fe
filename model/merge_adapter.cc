#include "model/merge_adapter.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "model/json_fields.h"
#include "model/torch_status.h"

namespace pricer {
namespace {

using Json = nlohmann::json;

constexpr absl::string_view kHead = "lm_head.weight";
constexpr absl::string_view kScore = "score.weight";
// Values that are worked on at a time, so that what is derived of a weight stays small.
constexpr int64_t kSliceElements = 4 << 20;

at::ScalarType ScalarTypeOf(Dtype dtype) {
  if (dtype == Dtype::kBF16) return at::kBFloat16;
  return dtype == Dtype::kF16 ? at::kHalf : at::kFloat;
}

std::string TorchDtypeName(Dtype dtype) {
  if (dtype == Dtype::kBF16) return "bfloat16";
  return dtype == Dtype::kF16 ? "float16" : "float32";
}

// Sums over all merged weights.
struct RoundingErrors {
  double largest = 0;
  std::string worst_module;
  double relative_sum = 0;
  int64_t nonzero = 0;
  double squared_error = 0;
  double squared_change = 0;

  // Of one slice: `change` is what the adapter added.
  void Add(const std::string& module, const at::Tensor& exact, const at::Tensor& rounded,
           const at::Tensor& change) {
    const at::Tensor error = (rounded.to(at::kFloat) - exact).abs();
    const at::Tensor is_nonzero = exact != 0;
    const at::Tensor relative = at::where(is_nonzero, error / exact.abs(), at::zeros({}));
    const double largest_here = relative.max().item<double>();
    if (largest_here > largest) {
      largest = largest_here;
      worst_module = module;
    }
    relative_sum += relative.sum(at::kDouble).item<double>();
    nonzero += is_nonzero.sum().item<int64_t>();
    squared_error += error.square().sum(at::kDouble).item<double>();
    squared_change += change.square().sum(at::kDouble).item<double>();
  }
};

class Merger {
 public:
  Merger(const Checkpoint& base, const PeftAdapter& adapter, const MergeOptions& options,
         const std::function<bool()>& cancelled)
      : base_(base),
        adapter_(adapter),
        options_(options),
        cancelled_(cancelled),
        classifies_(adapter.config.task == PeftTask::kSeqCls) {}

  std::vector<TensorGroup> Groups() {
    std::vector<TensorGroup> groups;
    const std::map<std::string, LinearPlace> linears = LinearWeights(base_.config());
    for (const auto& [name, view] : base_.tensors()) {
      if (absl::StrContains(name, ".weight.")) continue;  // a part of a quantized weight
      if (name == kHead && classifies_) continue;
      const auto place = linears.find(name);
      if (place != linears.end()) {
        groups.push_back(LinearGroup(name, place->second));
      } else if (name == kHead && base_.IsNf4("lm_head")) {
        groups.push_back(QuantizedHeadGroup());
      } else {
        groups.push_back(CopiedGroup(name, view));
      }
    }
    if (classifies_) groups.push_back(ScoreGroup());
    return groups;
  }

  MergeSummary Summary() const {
    MergeSummary summary;
    summary.merged = merged_;
    summary.max_relative_error = errors_.largest;
    summary.worst_module = errors_.worst_module;
    if (errors_.nonzero > 0) {
      summary.mean_relative_error = errors_.relative_sum / static_cast<double>(errors_.nonzero);
    }
    if (errors_.squared_change > 0) {
      summary.error_of_change = std::sqrt(errors_.squared_error / errors_.squared_change);
    }
    return summary;
  }

  absl::StatusOr<std::string> ConfigJson() const {
    ASSIGN_OR_RETURN(Json config, ReadJsonFile(base_.directory() + "/config.json"));
    config.erase("quantization_config");
    config.erase("pricer_base_fingerprint");
    config.erase(
        "torch_dtype");  // transformers 4's name, which 5 reads too where there is no other
    config.erase("dtype");
    config["torch_dtype"] = TorchDtypeName(options_.dtype);
    config["tie_word_embeddings"] = base_.config().tied_embeddings;
    config["architectures"] = {classifies_ ? "LlamaForSequenceClassification" : "LlamaForCausalLM"};
    if (classifies_) AddLabels(&config);
    return config.dump(2, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace) + "\n";
  }

 private:
  using Append = StreamedTensor::Append;

  // A group of one tensor; errors of `write`, libtorch's too, get file and name.
  TensorGroup GroupOf(const std::string& name, std::vector<int64_t> shape, Dtype dtype,
                      std::function<absl::Status(const Append& append)> write) {
    auto checked = [this, name, write = std::move(write)](const Append& append) -> absl::Status {
      if (cancelled_ && cancelled_()) return absl::CancelledError("merging");
      const absl::Status status = CatchTorch("merging", [&] {
        const at::NoGradGuard no_grad;
        return write(append);
      });
      if (status.ok()) return status;
      const std::string file = base_.has_tensor(name) ? base_.FileOf(name) : "adapter";
      return absl::Status(status.code(),
                          absl::StrCat(file, ": tensor ", Quoted(name), ": ", status.message()));
    };
    return {{name, dtype, std::move(shape), std::move(checked)}};
  }

  TensorGroup CopiedGroup(const std::string& name, const TensorView& view) {
    return GroupOf(name, view.shape, options_.dtype,
                   [this, &view](const Append& append) { return AppendConverted(view, append); });
  }

  TensorGroup QuantizedHeadGroup() {
    const ModelConfig& config = base_.config();
    return GroupOf(std::string(kHead), {config.vocabulary_size, config.hidden_size}, options_.dtype,
                   [this](const Append& append) -> absl::Status {
                     ASSIGN_OR_RETURN(const at::Tensor weight, LoadWeight("lm_head"));
                     return AppendConverted(ToView(weight), append);
                   });
  }

  TensorGroup ScoreGroup() {
    const at::Tensor& score = adapter_.weights.score;
    return GroupOf(std::string(kScore), score.sizes().vec(), Dtype::kF32,
                   [&score](const Append& append) {
                     return append(ToView(score.detach().contiguous()).data);
                   });
  }

  TensorGroup LinearGroup(const std::string& name, LinearPlace place) {
    const LinearShape shape = ProjectionShape(base_.config(), place.projection);
    return GroupOf(name, {shape.out, shape.in}, options_.dtype,
                   [this, place](const Append& append) { return AppendLinear(place, append); });
  }

  // [out, in] fp32.
  absl::StatusOr<at::Tensor> LoadWeight(const std::string& module) const {
    return LoadLinearWeight(base_, module, {.weights = options_.weights, .dtype = at::kFloat});
  }

  absl::Status AppendLinear(LinearPlace place, const Append& append) {
    const std::string module = ModulePath(place.layer, place.projection);
    ASSIGN_OR_RETURN(const at::Tensor weight, LoadWeight(module));
    const LoraWeights& lora = adapter_.weights.lora(place.layer, place.projection);
    if (!lora.defined()) return AppendConverted(ToView(weight), append);
    ++merged_;
    const at::Tensor scaled_b = lora.b * lora.scale;
    const int64_t step = std::max<int64_t>(1, kSliceElements / weight.size(1));
    for (int64_t row = 0; row < weight.size(0); row += step) {
      const int64_t rows = std::min(step, weight.size(0) - row);
      const at::Tensor change = at::mm(scaled_b.narrow(0, row, rows), lora.a);
      const at::Tensor exact = weight.narrow(0, row, rows) + change;
      const at::Tensor rounded = exact.to(ScalarTypeOf(options_.dtype));
      RETURN_IF_ERROR(AppendFinite(rounded, append));
      errors_.Add(module, exact, rounded, change);
    }
    return absl::OkStatus();
  }

  // Slice by slice.
  absl::Status AppendConverted(const TensorView& view, const Append& append) const {
    const int64_t width = DtypeBytes(view.dtype);
    for (int64_t begin = 0; begin < view.element_count(); begin += kSliceElements) {
      const int64_t count = std::min(kSliceElements, view.element_count() - begin);
      const at::Tensor slice =
          ToTensor({view.dtype, {count}, view.data.substr(begin * width, count * width)});
      RETURN_IF_ERROR(AppendFinite(slice.to(ScalarTypeOf(options_.dtype)), append));
    }
    return absl::OkStatus();
  }

  absl::Status AppendFinite(const at::Tensor& values, const Append& append) const {
    const int64_t finite = at::isfinite(values).sum().item<int64_t>();
    if (finite == values.numel()) return append(ToView(values).data);
    return absl::InvalidArgumentError(absl::StrCat("expected numbers that fit ",
                                                   DtypeName(options_.dtype), ", got ",
                                                   values.numel() - finite, " that do not"));
  }

  void AddLabels(Json* config) const {
    const int64_t bins = adapter_.weights.score.size(0);
    PRICER_CHECK(static_cast<int64_t>(options_.bin_names.size()) == bins);
    Json names = Json::object();
    Json ids = Json::object();
    for (int64_t i = 0; i < bins; ++i) {
      names[absl::StrCat(i)] = options_.bin_names[i];
      ids[options_.bin_names[i]] = i;
    }
    // num_labels itself is not stored: transformers counts id2label.
    (*config)["id2label"] = std::move(names);
    (*config)["label2id"] = std::move(ids);
    (*config)["problem_type"] = "single_label_classification";
    const ModelConfig& model = base_.config();
    const int64_t end = model.eos_token_ids.empty() ? 0 : model.eos_token_ids[0];
    (*config)["pad_token_id"] = model.pad_token_id.value_or(end);
  }

  const Checkpoint& base_;
  const PeftAdapter& adapter_;
  const MergeOptions& options_;
  const std::function<bool()>& cancelled_;
  const bool classifies_;
  int64_t merged_ = 0;
  RoundingErrors errors_;
};

}  // namespace

absl::StatusOr<MergeSummary> MergeAdapter(const Checkpoint& base, const PeftAdapter& adapter,
                                          const MergeOptions& options, const std::string& directory,
                                          const std::function<bool()>& cancelled) {
  Merger merger(base, adapter, options, cancelled);
  ASSIGN_OR_RETURN(const std::string config, merger.ConfigJson());
  ASSIGN_OR_RETURN(const int64_t bytes,
                   WriteShards(directory, merger.Groups(), options.max_shard_bytes));
  RETURN_IF_ERROR(WriteFile(absl::StrCat(directory, "/config.json"), config));
  RETURN_IF_ERROR(CopyCompanionFiles(base.directory(), directory));
  MergeSummary summary = merger.Summary();
  summary.bytes = bytes;
  return summary;
}

}  // namespace pricer
