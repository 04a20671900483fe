#include "absl/strings/str_cat.h"
#include "model/cuda/device.h"
#include "model/ops/attention_impl.h"
#include "model/ops/cross_entropy_impl.h"
#include "model/ops/device_nf4.h"
#include "model/ops/dropout_impl.h"
#include "model/ops/fused_adamw.h"
#include "model/ops/lora_blocks.h"
#include "model/ops/rms_norm_impl.h"
#include "model/ops/rotary_impl.h"
#include "model/ops/swiglu_impl.h"

// Stands for everything that a build without CUDA leaves out. No tensor is on a GPU then, so that
// none of it is ever called.

namespace pricer::cuda {
namespace {

[[noreturn]] void Refuse() { TORCH_CHECK(false, "this build has no CUDA"); }

}  // namespace

bool RunsOn(at::Device /*device*/) { return false; }

absl::Status CheckAvailable(at::Device device) {
  return absl::FailedPreconditionError(
      absl::StrCat("device ", device.str(), ": this build of the program has no CUDA"));
}

absl::Status CheckUsable(at::Device /*device*/) { return absl::OkStatus(); }

int64_t FreeBytes(at::Device /*device*/) { Refuse(); }

int64_t TakePeakBytes(at::Device /*device*/) { Refuse(); }

void RunOnOwnStream(at::Device /*device*/, const std::function<void()>& /*body*/) { Refuse(); }

at::Tensor Upload(const at::Tensor& /*tensor*/, at::Device /*device*/) { Refuse(); }

std::unique_ptr<SideStream> SideStream::Create() { Refuse(); }

DeviceNf4 UploadNf4(const Nf4Tensor&, at::Device) { Refuse(); }

absl::StatusOr<DeviceNf4> QuantizeNf4(const at::Tensor&) { Refuse(); }

void DecodeNf4(const DeviceNf4&, const at::Tensor&) { Refuse(); }

void FillDropoutMask(const DropoutRowKey&, const DropoutRows&, int64_t, const at::Tensor&) {
  Refuse();
}

void AddRmsNormForward(const at::Tensor&, const at::Tensor&, const at::Tensor&, double,
                       const AddRmsNormState&) {
  Refuse();
}

void AddRmsNormBackward(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                        const at::Tensor&, const at::Tensor&) {
  Refuse();
}

void RotateInPlace(const at::Tensor&, const at::Tensor&, const RotaryTable&, int64_t, bool) {
  Refuse();
}

void SwigluForward(const at::Tensor&, const at::Tensor&) { Refuse(); }

void SwigluBackward(const at::Tensor&, const at::Tensor&, const at::Tensor&) { Refuse(); }

at::Tensor LoraForward(const LoraPlan&, const at::Tensor&, std::vector<at::Tensor>*) { Refuse(); }

LoraGradients LoraBackward(const LoraPlan&, const at::Tensor&, const std::vector<at::Tensor>&,
                           const at::Tensor&, bool) {
  Refuse();
}

at::Tensor LinearInputGradient(const at::Tensor&, const FrozenLinears&) { Refuse(); }

AttentionOutput ForwardAttention(const AttentionProblem&, const at::Tensor&, const at::Tensor&) {
  Refuse();
}

void BackwardAttention(const AttentionProblem&, const AttendedTensors&, const AttentionGradients&) {
  Refuse();
}

PromptAttentionOutput PromptAttention(const at::Tensor&, const at::Tensor&,
                                      const std::vector<int64_t>&, const std::vector<int64_t>&,
                                      const AttentionShape&) {
  Refuse();
}

// NOLINTNEXTLINE(performance-unnecessary-value-param): the signature is the real one's.
std::unique_ptr<FusedAdamW> FusedAdamW::Create(std::vector<Tensors>) { Refuse(); }

void CrossEntropyRows(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&) {
  Refuse();
}

}  // namespace pricer::cuda
