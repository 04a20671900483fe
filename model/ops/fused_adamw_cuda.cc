#include <cmath>
#include <cstring>
#include <utility>

#include "model/cuda/elements.h"
#include "model/cuda/launch_check.h"
#include "model/ops/adamw_kernel.h"
#include "model/ops/fused_adamw.h"

namespace pricer::cuda {
namespace {

template <typename T>
at::Tensor BytesOn(const std::vector<T>& values, at::Device device) {
  at::Tensor bytes = at::empty({static_cast<int64_t>(values.size() * sizeof(T))}, at::kByte);
  if (!values.empty()) std::memcpy(bytes.mutable_data_ptr(), values.data(), bytes.nbytes());
  return bytes.to(device);
}

class KernelAdamW : public FusedAdamW {
 public:
  explicit KernelAdamW(std::vector<Tensors> tensors) : tensors_(std::move(tensors)) {
    const at::Device device = tensors_.front().parameter.device();
    std::vector<AdamWTensor> entries;
    std::vector<int32_t> chunk_tensor, tensor_chunk;
    for (const Tensors& tensor : tensors_) {
      const int64_t count = tensor.parameter.numel();
      const auto index = static_cast<int32_t>(entries.size());
      entries.push_back({.parameter = Write<float>(tensor.parameter),
                         .gradient = Read<float>(tensor.gradient),
                         .first_moment = Write<float>(tensor.first_moment),
                         .second_moment = Write<float>(tensor.second_moment),
                         .count = count,
                         .group = tensor.group});
      for (int32_t chunk = 0; chunk * kAdamWChunk < count; ++chunk) {
        chunk_tensor.push_back(index);
        tensor_chunk.push_back(chunk);
      }
    }
    entries_ = BytesOn(entries, device);
    chunk_tensor_ = BytesOn(chunk_tensor, device);
    tensor_chunk_ = BytesOn(tensor_chunk, device);
    table_ = {.tensors = Read<AdamWTensor>(entries_),
              .chunk_tensor = Read<int32_t>(chunk_tensor_),
              .tensor_chunk = Read<int32_t>(tensor_chunk_),
              .chunks = static_cast<int64_t>(chunk_tensor.size())};
    const auto options = at::TensorOptions(device);
    partial_ = at::empty({table_.chunks}, options.dtype(at::kDouble));
    norm_ = at::zeros({1}, options.dtype(at::kFloat));
    clip_factor_ = at::ones({1}, options.dtype(at::kFloat));
  }

  at::Tensor GradientNorm(double max_norm) override {
    CheckLaunch(LaunchGradientNorm({.table = table_,
                                    .max_norm = static_cast<float>(max_norm),
                                    .partial = Write<double>(partial_),
                                    .norm = Write<float>(norm_),
                                    .clip_factor = Write<float>(clip_factor_)},
                                   CurrentStream()),
                "the norm of the gradients");
    return norm_;
  }

  void Step(const StepOptions& options) override {
    AdamWParams params;
    TORCH_CHECK(options.learning_rates.size() <= kAdamWMaxGroups, "too many learning rates");
    for (size_t g = 0; g < options.learning_rates.size(); ++g) {
      params.learning_rate[g] = static_cast<float>(options.learning_rates[g]);
    }
    params.table = table_;
    params.beta1 = static_cast<float>(options.beta1);
    params.beta2 = static_cast<float>(options.beta2);
    params.epsilon = static_cast<float>(options.epsilon);
    params.weight_decay = static_cast<float>(options.weight_decay);
    const auto step = static_cast<double>(options.step);
    params.bias_correction1 = static_cast<float>(1 - std::pow(options.beta1, step));
    params.sqrt_bias_correction2 = static_cast<float>(std::sqrt(1 - std::pow(options.beta2, step)));
    params.norm = Read<float>(norm_);
    params.clip_factor = Read<float>(clip_factor_);
    CheckLaunch(LaunchAdamW(params, CurrentStream()), "AdamW");
  }

 private:
  const std::vector<Tensors> tensors_;
  at::Tensor entries_, chunk_tensor_, tensor_chunk_;  // the table's
  AdamWTable table_;
  at::Tensor partial_, norm_, clip_factor_;
};

}  // namespace

std::unique_ptr<FusedAdamW> FusedAdamW::Create(std::vector<Tensors> tensors) {
  return std::make_unique<KernelAdamW>(std::move(tensors));
}

}  // namespace pricer::cuda
