#pragma once

#include <ATen/ATen.h>

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/checkpoint.h"
#include "model/safetensors.h"

namespace pricer {

// What the linear layers' weights are rounded to.
enum class WeightsKind { kNf4, kBf16, kFp32 };
absl::StatusOr<WeightsKind> ParseWeightsKind(absl::string_view text);  // "nf4", "bf16", "fp32"
absl::string_view WeightsKindName(WeightsKind kind);

struct NetworkOptions {
  // kNf4: quantized as bitsandbytes does from the checkpoint's own dtype and decoded once to
  // resident `dtype`: the same values as decoding at every use, faster. Of a checkpoint that is in
  // NF4 already, nothing is quantized: what it stores in NF4 is taken as stored whatever the kind,
  // and kNf4 takes the linears that it leaves in 16 or 32 bits as stored too.
  WeightsKind weights = WeightsKind::kNf4;
  // at::kFloat or at::kBFloat16: of activations and of the resident weights.
  at::ScalarType dtype = at::kFloat;
  // Where the network lies and computes. On a GPU `dtype` is at::kBFloat16.
  at::Device device = at::kCPU;
  // On a GPU, of kNf4: linears stay in NF4 and are decoded layer by layer ahead of use, instead of
  // once: the same bits, a quarter of the memory.
  bool keep_nf4 = false;
};

// "fp32", "bf16"; "auto" = bf16 where the processor multiplies it natively (AVX512-BF16 or AMX),
// else fp32.
absl::StatusOr<at::ScalarType> ParseComputeDtype(absl::string_view text);
// "fp32" or "bf16".
absl::string_view ComputeDtypeName(at::ScalarType dtype);

// "cpu"; "cuda", the first GPU that CUDA_VISIBLE_DEVICES leaves; "auto" = that one where it can be
// used, else the CPU. FailedPrecondition where the GPU cannot be used.
absl::StatusOr<at::Device> ParseDevice(absl::string_view text);

// What `options` leave open: "auto" as dtype is bf16 on a GPU. InvalidArgument where the device
// does not compute in that dtype.
absl::StatusOr<at::ScalarType> ParseComputeDtype(absl::string_view text, at::Device device);

// What of NF4 linears stays on a GPU: them, their decoded values, or the latter where they take at
// most half of the memory that is free.
enum class Residency { kNf4, kDecoded, kWhatFits };
bool KeepsNf4(const Checkpoint& checkpoint, const NetworkOptions& options, Residency resident);

// A copy of a file's tensor, in its own dtype, on the CPU or on `device`.
at::Tensor ToTensor(const TensorView& view, at::Device device = at::kCPU);
// A view of a contiguous CPU tensor, to write. The tensor must outlive it.
TensorView ToView(const at::Tensor& tensor);

// Weight [out, in] of the linear `module`, rounded as options.weights says, in options.dtype.
absl::StatusOr<at::Tensor> LoadLinearWeight(const Checkpoint& checkpoint, const std::string& module,
                                            const NetworkOptions& options);

}  // namespace pricer
