#include "model/quantize_checkpoint.h"

#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/new_directory.h"
#include "base/status_macros.h"
#include "model/json_fields.h"
#include "model/nf4.h"
#include "model/torch_status.h"
#include "model/weights.h"

namespace pricer {
namespace {

using Json = nlohmann::json;

// Larger parts are made again when they are written.
constexpr size_t kKeptBytes = 64 << 10;

// Quantizes weights by their names; only the last one stays in memory.
class Quantizer {
 public:
  Quantizer(const Checkpoint& base, bool double_quantization, std::function<bool()> cancelled)
      : base_(base), double_quantization_(double_quantization), cancelled_(std::move(cancelled)) {}

  absl::Status CheckCancelled() const {
    return cancelled_ && cancelled_() ? absl::CancelledError("quantizing") : absl::OkStatus();
  }

  // Valid until the next call.
  absl::StatusOr<const Nf4Serialized*> Quantize(const std::string& weight) {
    if (weight == weight_) return &stored_;
    RETURN_IF_ERROR(CheckCancelled());
    weight_.clear();
    const absl::Status status = CatchTorch(weight, [&] { return QuantizeInto(weight, &stored_); });
    if (!status.ok()) {
      return absl::Status(status.code(), absl::StrCat(base_.FileOf(weight), ": tensor ",
                                                      Quoted(weight), ": ", status.message()));
    }
    weight_ = weight;
    return &stored_;
  }

 private:
  absl::Status QuantizeInto(const std::string& weight, Nf4Serialized* stored) const {
    const TensorView& view = base_.tensor(weight);
    const at::Tensor values = ToTensor(view).to(at::kFloat);
    const absl::Span<const float> span(values.const_data_ptr<float>(), values.numel());
    ASSIGN_OR_RETURN(const Nf4Tensor quantized,
                     QuantizeNf4(span, view.shape, view.dtype, double_quantization_));
    *stored = SerializeNf4(quantized);
    return absl::OkStatus();
  }

  const Checkpoint& base_;
  const bool double_quantization_;
  const std::function<bool()> cancelled_;
  std::string weight_;  // whose parts `stored_` is; empty = none
  Nf4Serialized stored_;
};

// The header needs the sizes of all parts, and one is a text with a number in it: so the weight is
// quantized here a first time.
absl::StatusOr<TensorGroup> QuantizedGroup(const std::string& weight, Quantizer* quantizer) {
  ASSIGN_OR_RETURN(const Nf4Serialized* const stored, quantizer->Quantize(weight));
  TensorGroup group;
  for (size_t i = 0; i < stored->parts.size(); ++i) {
    const auto& [suffix, view] = stored->parts[i];
    StreamedTensor tensor{weight + suffix, view.dtype, view.shape, nullptr};
    if (view.data.size() <= kKeptBytes) {
      tensor.write = [kept = std::string(view.data)](const StreamedTensor::Append& append) {
        return append(kept);
      };
    } else {
      tensor.write = [weight, i, quantizer](const StreamedTensor::Append& append) -> absl::Status {
        ASSIGN_OR_RETURN(const Nf4Serialized* const again, quantizer->Quantize(weight));
        return append(again->parts[i].view.data);
      };
    }
    group.push_back(std::move(tensor));
  }
  return group;
}

TensorGroup CopiedGroup(const std::string& name, const TensorView& view,
                        const Quantizer& quantizer) {
  const absl::string_view data = view.data;
  const auto write = [data, &quantizer](const StreamedTensor::Append& append) -> absl::Status {
    RETURN_IF_ERROR(quantizer.CheckCancelled());
    return append(data);
  };
  return {{name, view.dtype, view.shape, write}};
}

absl::string_view TorchDtypeName(Dtype dtype) {
  if (dtype == Dtype::kBF16) return "bfloat16";
  return dtype == Dtype::kF16 ? "float16" : "float32";
}

// As transformers 5 writes it.
Json QuantizationConfig(Dtype compute_dtype, bool double_quantization) {
  return {{"_load_in_4bit", true},
          {"_load_in_8bit", false},
          {"bnb_4bit_compute_dtype", std::string(TorchDtypeName(compute_dtype))},
          {"bnb_4bit_quant_storage", "uint8"},
          {"bnb_4bit_quant_type", "nf4"},
          {"bnb_4bit_use_double_quant", double_quantization},
          {"llm_int8_enable_fp32_cpu_offload", false},
          {"llm_int8_has_fp16_weight", false},
          {"llm_int8_skip_modules", nullptr},
          {"llm_int8_threshold", 6.0},
          {"load_in_4bit", true},
          {"load_in_8bit", false},
          {"quant_method", "bitsandbytes"}};
}

absl::StatusOr<std::string> QuantizedConfig(const Checkpoint& base, bool double_quantization) {
  ASSIGN_OR_RETURN(Json config, ReadJsonFile(base.directory() + "/config.json"));
  const Dtype dtype = base.tensor(ModulePath(0, Projection::kQ) + ".weight").dtype;
  config["quantization_config"] = QuantizationConfig(dtype, double_quantization);
  ASSIGN_OR_RETURN(config["pricer_base_fingerprint"], base.Fingerprint());
  return config.dump(2) + "\n";
}

// What readers would refuse does not get the directory's name.
absl::Status CheckWritten(const Checkpoint& base, const std::string& directory) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Checkpoint> written, Checkpoint::Open(directory));
  ASSIGN_OR_RETURN(const std::string expected, base.Fingerprint());
  ASSIGN_OR_RETURN(const std::string fingerprint, written->Fingerprint());
  if (fingerprint == expected) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat(directory, ": expected the fingerprint ", expected, ", got ", fingerprint));
}

}  // namespace

absl::StatusOr<QuantizeSummary> QuantizeCheckpoint(const Checkpoint& base,
                                                   const std::string& directory,
                                                   const QuantizeOptions& options,
                                                   const std::function<bool()>& cancelled) {
  if (base.declares_nf4()) {
    return absl::FailedPreconditionError(absl::StrCat(
        base.directory(), ": is quantized already; expected weights in 16 or 32 bits"));
  }
  ASSIGN_OR_RETURN(const std::string config, QuantizedConfig(base, options.double_quantization));
  ASSIGN_OR_RETURN(NewDirectory made, NewDirectory::Create(directory));
  const std::map<std::string, LinearPlace> linears = LinearWeights(base.config());
  Quantizer quantizer(base, options.double_quantization, cancelled);
  QuantizeSummary summary{.linears = static_cast<int64_t>(linears.size())};
  std::vector<TensorGroup> groups;
  for (const auto& [name, view] : base.tensors()) {
    summary.bytes_before += static_cast<int64_t>(view.data.size());
    if (linears.count(name) == 0) {
      groups.push_back(CopiedGroup(name, view, quantizer));
      continue;
    }
    ASSIGN_OR_RETURN(TensorGroup group, QuantizedGroup(name, &quantizer));
    groups.push_back(std::move(group));
  }
  ASSIGN_OR_RETURN(summary.bytes,
                   WriteShards(made.path(), std::move(groups), options.max_shard_bytes));
  RETURN_IF_ERROR(WriteFile(made.File("config.json"), config));
  RETURN_IF_ERROR(CopyCompanionFiles(base.directory(), made.path()));
  RETURN_IF_ERROR(CheckWritten(base, made.path()));
  RETURN_IF_ERROR(made.Commit());
  return summary;
}

}  // namespace pricer
