#include "model/cuda/elements.h"
#include "model/cuda/launch_check.h"
#include "model/ops/swiglu_impl.h"
#include "model/ops/swiglu_kernel.h"

namespace pricer::cuda {

void SwigluForward(const at::Tensor& gate_up, const at::Tensor& out) {
  DispatchKernelType(out.scalar_type(), [&]<typename T>() {
    const SwigluParams<T> params = {.rows = out.size(0),
                                    .columns = out.size(1),
                                    .gate_up = Read<T>(gate_up),
                                    .out = Write<T>(out)};
    CheckLaunch(LaunchSwiglu(params, CurrentStream()), "Swiglu");
  });
}

void SwigluBackward(const at::Tensor& grad, const at::Tensor& gate_up,
                    const at::Tensor& grad_gate_up) {
  DispatchKernelType(grad.scalar_type(), [&]<typename T>() {
    const SwigluGradientParams<T> params = {.rows = grad.size(0),
                                            .columns = grad.size(1),
                                            .grad = Read<T>(grad),
                                            .gate_up = Read<T>(gate_up),
                                            .grad_gate_up = Write<T>(grad_gate_up)};
    CheckLaunch(LaunchSwigluGradient(params, CurrentStream()), "Swiglu's gradient");
  });
}

}  // namespace pricer::cuda
