#include "model/cuda/elements.h"
#include "model/cuda/launch_check.h"
#include "model/ops/rms_norm_impl.h"
#include "model/ops/rms_norm_kernel.h"

namespace pricer::cuda {

void AddRmsNormForward(const at::Tensor& residual, const at::Tensor& delta,
                       const at::Tensor& weight, double epsilon, const AddRmsNormState& out) {
  DispatchKernelType(residual.scalar_type(), [&]<typename T>() {
    const AddRmsNormParams<T> params = {.rows = residual.size(0),
                                        .columns = residual.size(1),
                                        .epsilon = static_cast<float>(epsilon),
                                        .residual = Read<T>(residual),
                                        .delta = Read<T>(delta),
                                        .weight = Read<T>(weight),
                                        .sum = delta.defined() ? Write<T>(out.sum) : nullptr,
                                        .normed = Write<T>(out.normed),
                                        .inverse_rms = Write<float>(out.inverse_rms)};
    CheckLaunch(LaunchAddRmsNorm(params, CurrentStream()), "AddRmsNorm");
  });
}

void AddRmsNormBackward(const at::Tensor& grad_normed, const at::Tensor& grad_sum,
                        const at::Tensor& sum, const at::Tensor& weight,
                        const at::Tensor& inverse_rms, const at::Tensor& grad) {
  DispatchKernelType(sum.scalar_type(), [&]<typename T>() {
    const RmsNormGradientParams<T> params = {.rows = sum.size(0),
                                             .columns = sum.size(1),
                                             .grad_normed = Read<T>(grad_normed),
                                             .grad_sum = Read<T>(grad_sum),
                                             .sum = Read<T>(sum),
                                             .weight = Read<T>(weight),
                                             .inverse_rms = Read<float>(inverse_rms),
                                             .grad = Write<T>(grad)};
    CheckLaunch(LaunchRmsNormGradient(params, CurrentStream()), "AddRmsNorm's gradient");
  });
}

}  // namespace pricer::cuda
