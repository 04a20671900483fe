#include <utility>
#include <vector>

#include "model/cuda/elements.h"
#include "model/cuda/launch_check.h"
#include "model/ops/lora_blocks.h"
#include "model/ops/lora_kernel.h"

namespace pricer::cuda {
namespace {

// The stacked weights of linears that lie side by side, [out, in], and what is added to y.
struct Stack {
  at::Tensor weight;
  at::Tensor bias;  // undefined where there is none
};

Stack StackOf(const FrozenLinears& linears) {
  const DeviceWeight* const weight = linears.front()->device_weight();
  TORCH_CHECK(weight != nullptr, "the linear's weight is not on a GPU");
  const int64_t begin = linears.front()->begin();
  const int64_t end = linears.back()->begin() + linears.back()->out();
  const at::Tensor& bias = weight->bias();
  return {weight->Rows(begin, end), bias.defined() ? bias.narrow(0, begin, end - begin) : bias};
}

// A plan as the kernels take it. Holds the operands until its launches are made; what runs then is
// kept by the allocator, which gives memory only to launches behind them.
class KernelPlan {
 public:
  explicit KernelPlan(const LoraPlan& plan) {
    int32_t number = 0;
    for (const PlannedSegment& segment : plan.segments) {
      for (const PlannedPart& part : segment.parts) {
        const at::Tensor a = part.a.to(at::kBFloat16).contiguous();
        const at::Tensor b = part.b.to(at::kBFloat16).contiguous();
        operands_.insert(operands_.end(), {a, b});
        parts_.push_back({.row_begin = segment.begin,
                          .rows = static_cast<int32_t>(segment.rows()),
                          .rank = static_cast<int32_t>(part.rank),
                          .segment = number,
                          .out_size = static_cast<int32_t>(part.out_size),
                          .out_begin = part.out_begin,
                          .state_begin = batch_.state_size,
                          .scale = static_cast<float>(part.scale),
                          .a = Read<__nv_bfloat16>(a),
                          .b = Read<__nv_bfloat16>(b),
                          .mask = Read<uint32_t>(part.mask)});
        batch_.state_size += parts_.back().state_size();
      }
      ++number;
    }
    batch_.parts = parts_.data();
    batch_.count = static_cast<int>(parts_.size());
    batch_.in = plan.in;
    batch_.out = plan.out;
  }
  KernelPlan(const KernelPlan&) = delete;
  KernelPlan& operator=(const KernelPlan&) = delete;

  const LoraBatch& batch() const { return batch_; }
  at::Tensor MakeStates(const at::Tensor& like) const {
    return at::empty({batch_.state_size}, like.options());
  }
  at::Tensor MakeWorkspace(const at::Tensor& like) const {
    return at::empty({LoraWorkspaceSize(batch_)}, like.options().dtype(at::kFloat));
  }
  // New gradients of A and B, of all parts, for the kernels to write.
  void MakeGradients(const LoraPlan& plan, LoraGradients* out) {
    size_t number = 0;
    for (const PlannedSegment& segment : plan.segments) {
      for (const PlannedPart& part : segment.parts) {
        out->a.push_back(at::empty_like(part.a, at::kFloat));
        out->b.push_back(at::empty_like(part.b, at::kFloat));
        parts_[number].grad_a = Write<float>(out->a.back());
        parts_[number].grad_b = Write<float>(out->b.back());
        ++number;
      }
    }
  }

 private:
  std::vector<at::Tensor> operands_;  // bf16
  std::vector<LoraKernelPart> parts_;
  LoraBatch batch_;
};

void CheckDtype(const LoraPlan& plan, const at::Tensor& x) {
  TORCH_CHECK(plan.segments.empty() || x.scalar_type() == at::kBFloat16,
              "LoRA on a GPU computes in bf16, got ", x.scalar_type());
}

}  // namespace

at::Tensor LoraForward(const LoraPlan& plan, const at::Tensor& x, std::vector<at::Tensor>* states) {
  CheckDtype(plan, x);
  const Stack stack = StackOf(plan.linears);
  at::Tensor y = at::linear(x, stack.weight, stack.bias);
  if (plan.segments.empty()) return y;
  const KernelPlan kernel(plan);
  const at::Tensor low_rank = kernel.MakeStates(x);
  const at::Tensor workspace = kernel.MakeWorkspace(x);
  CheckLaunch(LaunchLoraStates(kernel.batch(), Read<__nv_bfloat16>(x), Write<float>(workspace),
                               Write<__nv_bfloat16>(low_rank), CurrentStream()),
              "LoRA's states");
  CheckLaunch(LaunchLoraOutput(kernel.batch(), Read<__nv_bfloat16>(low_rank),
                               Write<__nv_bfloat16>(y), CurrentStream()),
              "LoRA's output");
  if (states != nullptr) *states = {low_rank};
  return y;
}

LoraGradients LoraBackward(const LoraPlan& plan, const at::Tensor& x,
                           const std::vector<at::Tensor>& states, const at::Tensor& grad,
                           bool wants_x) {
  CheckDtype(plan, x);
  LoraGradients out;
  if (wants_x) out.x = at::mm(grad, StackOf(plan.linears).weight);
  if (plan.segments.empty()) return out;
  KernelPlan kernel(plan);
  kernel.MakeGradients(plan, &out);
  const at::Tensor grad_states = kernel.MakeStates(x);
  const at::Tensor workspace = kernel.MakeWorkspace(x);
  CheckLaunch(
      LaunchLoraStateGradient(kernel.batch(), Read<__nv_bfloat16>(grad), Write<float>(workspace),
                              Write<__nv_bfloat16>(grad_states), CurrentStream()),
      "the gradient of LoRA's states");
  if (wants_x) {
    CheckLaunch(LaunchLoraInputGradient(kernel.batch(), Read<__nv_bfloat16>(grad_states),
                                        Write<__nv_bfloat16>(out.x), CurrentStream()),
                "LoRA's gradient of the input");
  }
  CheckLaunch(LaunchLoraWeightGradients(
                  kernel.batch(), Read<__nv_bfloat16>(x), Read<__nv_bfloat16>(grad),
                  Read<__nv_bfloat16>(states.front()), Read<__nv_bfloat16>(grad_states),
                  Write<float>(workspace), CurrentStream()),
              "LoRA's gradients of the weights");
  return out;
}

at::Tensor LinearInputGradient(const at::Tensor& grad, const FrozenLinears& linears) {
  return at::mm(grad, StackOf(linears).weight);
}

}  // namespace pricer::cuda
