#include "model/weights.h"

#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "model/cuda/device.h"
#include "model/nf4.h"
#include "model/processor.h"

namespace pricer {
namespace {

at::ScalarType ScalarTypeOf(Dtype dtype) {
  switch (dtype) {
    case Dtype::kF64:
      return at::kDouble;
    case Dtype::kF32:
      return at::kFloat;
    case Dtype::kF16:
      return at::kHalf;
    case Dtype::kBF16:
      return at::kBFloat16;
    case Dtype::kI64:
      return at::kLong;
    case Dtype::kI32:
      return at::kInt;
    case Dtype::kI16:
      return at::kShort;
    case Dtype::kI8:
      return at::kChar;
    case Dtype::kU8:
      return at::kByte;
    case Dtype::kBool:
      return at::kBool;
  }
  return at::kFloat;
}

absl::Status Annotate(const absl::Status& status, const Checkpoint& checkpoint,
                      const std::string& tensor) {
  return absl::Status(status.code(), absl::StrCat(checkpoint.FileOf(tensor), ": tensor ", tensor,
                                                  ": ", status.message()));
}

at::Tensor DecodeNf4(const Nf4Tensor& quantized, at::ScalarType dtype) {
  at::Tensor values = at::empty(quantized.shape, at::kFloat);
  DequantizeNf4(quantized, absl::MakeSpan(values.mutable_data_ptr<float>(), values.numel()));
  return values.to(dtype);
}

}  // namespace

absl::StatusOr<WeightsKind> ParseWeightsKind(absl::string_view text) {
  for (WeightsKind kind : {WeightsKind::kNf4, WeightsKind::kBf16, WeightsKind::kFp32}) {
    if (text == WeightsKindName(kind)) return kind;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("weights: expected nf4, bf16 or fp32, got \"", text, "\""));
}

absl::string_view WeightsKindName(WeightsKind kind) {
  switch (kind) {
    case WeightsKind::kNf4:
      return "nf4";
    case WeightsKind::kBf16:
      return "bf16";
    case WeightsKind::kFp32:
      return "fp32";
  }
  return "";
}

absl::StatusOr<at::ScalarType> ParseComputeDtype(absl::string_view text) {
  if (text == "fp32") return at::kFloat;
  if (text == "bf16") return at::kBFloat16;
  if (text == "auto") return ThisProcessor().multiplies_bf16 ? at::kBFloat16 : at::kFloat;
  return absl::InvalidArgumentError(
      absl::StrCat("dtype: expected auto, fp32 or bf16, got \"", text, "\""));
}

absl::StatusOr<at::Device> ParseDevice(absl::string_view text) {
  const at::Device cpu(at::kCPU);
  const at::Device gpu(at::kCUDA, 0);
  if (text == "cpu") return cpu;
  if (text == "auto") return cuda::CheckAvailable(gpu).ok() ? gpu : cpu;
  if (text != "cuda") {
    return absl::InvalidArgumentError(
        absl::StrCat("device: expected auto, cpu or cuda, got \"", text, "\""));
  }
  RETURN_IF_ERROR(cuda::CheckAvailable(gpu));
  return gpu;
}

absl::StatusOr<at::ScalarType> ParseComputeDtype(absl::string_view text, at::Device device) {
  if (device.is_cpu()) return ParseComputeDtype(text);
  if (text == "fp32") {
    return absl::InvalidArgumentError("dtype: a GPU computes in bf16, got \"fp32\"");
  }
  return text == "auto" ? at::kBFloat16 : ParseComputeDtype(text);
}

absl::string_view ComputeDtypeName(at::ScalarType dtype) {
  return dtype == at::kBFloat16 ? "bf16" : "fp32";
}

bool KeepsNf4(const Checkpoint& checkpoint, const NetworkOptions& options, Residency resident) {
  const bool nf4 = options.weights == WeightsKind::kNf4 || checkpoint.declares_nf4();
  if (!nf4 || !cuda::RunsOn(options.device) || resident == Residency::kDecoded) return false;
  if (resident == Residency::kNf4) return true;
  const int64_t decoded =
      checkpoint.config().ParameterCount() * static_cast<int64_t>(at::elementSize(options.dtype));
  return decoded > cuda::FreeBytes(options.device) / 2;
}

at::Tensor ToTensor(const TensorView& view, at::Device device) {
  if (!device.is_cpu()) {
    // Straight from the mapped file. The bytes are only read.
    const auto host = at::from_blob(const_cast<char*>(view.data.data()), view.shape,
                                    at::TensorOptions().dtype(ScalarTypeOf(view.dtype)));
    return host.to(device);
  }
  at::Tensor tensor = at::empty(view.shape, ScalarTypeOf(view.dtype));
  PRICER_CHECK(tensor.nbytes() == view.data.size());
  if (!view.data.empty()) {
    std::memcpy(tensor.mutable_data_ptr(), view.data.data(), view.data.size());
  }
  return tensor;
}

TensorView ToView(const at::Tensor& tensor) {
  PRICER_CHECK(tensor.is_contiguous());
  TensorView view;
  for (Dtype dtype : {Dtype::kF32, Dtype::kBF16, Dtype::kF16, Dtype::kF64, Dtype::kI64, Dtype::kI32,
                      Dtype::kU8}) {
    if (ScalarTypeOf(dtype) == tensor.scalar_type()) view.dtype = dtype;
  }
  view.shape = tensor.sizes().vec();
  view.data = {static_cast<const char*>(tensor.const_data_ptr()), tensor.nbytes()};
  return view;
}

absl::StatusOr<at::Tensor> LoadLinearWeight(const Checkpoint& checkpoint, const std::string& module,
                                            const NetworkOptions& options) {
  if (checkpoint.IsNf4(module)) {
    ASSIGN_OR_RETURN(const Nf4Tensor stored, checkpoint.ReadNf4(module));
    return DecodeNf4(stored, options.dtype);
  }
  const std::string name = module + ".weight";
  const TensorView& view = checkpoint.tensor(name);
  const at::Tensor values = ToTensor(view).to(at::kFloat);
  switch (options.weights) {
    case WeightsKind::kFp32:
      return values.to(options.dtype);
    case WeightsKind::kBf16:
      return values.to(at::kBFloat16).to(options.dtype);
    case WeightsKind::kNf4:
      break;
  }
  if (checkpoint.declares_nf4()) return values.to(options.dtype);
  const absl::StatusOr<Nf4Tensor> quantized = QuantizeNf4(
      absl::MakeConstSpan(values.const_data_ptr<float>(), values.numel()), view.shape, view.dtype);
  if (!quantized.ok()) return Annotate(quantized.status(), checkpoint, name);
  return DecodeNf4(*quantized, options.dtype);
}

}  // namespace pricer
