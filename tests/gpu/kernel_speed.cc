#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <memory>
#include <string>

#include "base/status_macros.h"
#include "model/ops/device_nf4.h"
#include "model/ops/dropout.h"
#include "model/ops/lora_linear.h"
#include "model/ops/rms_norm.h"
#include "model/ops/rotary.h"
#include "model/ops/swiglu.h"
#include "tests/gpu/speed.h"

// Each op at the shapes of an 8B model: what it moves through memory, over its time, as a share of
// what a plain copy moves.

namespace pricer::gpu {
namespace {

class KernelMeter {
 public:
  KernelMeter(const Bench& bench, nlohmann::json* figures) : bench_(bench), figures_(figures) {}

  absl::Status MeasureCopy() {
    const int64_t count = bench_.small ? 1 << 12 : int64_t{1} << 30;
    const at::Tensor from = at::ones({count}, Options(at::kBFloat16));
    at::Tensor to = at::empty_like(from);
    ASSIGN_OR_RETURN(const double seconds, Seconds([&] { to.copy_(from); }));
    copy_rate_ = 2.0 * static_cast<double>(from.nbytes()) / seconds;
    (*figures_)["copy_gb_per_second"] = copy_rate_ / 1e9;
    return absl::OkStatus();
  }

  absl::Status Measure(const std::string& name, double bytes, const std::function<void()>& call) {
    ASSIGN_OR_RETURN(const double seconds, Seconds(call));
    (*figures_)[name + "_microseconds"] = seconds * 1e6;
    (*figures_)[name + "_share_of_copy"] = bytes / seconds / copy_rate_;
    return absl::OkStatus();
  }

  at::TensorOptions Options(at::ScalarType dtype) const {
    return at::TensorOptions(bench_.device).dtype(dtype);
  }

 private:
  absl::StatusOr<double> Seconds(const std::function<void()>& call) const {
    return MedianSeconds(bench_, bench_.part_seconds / 40, [&] {
      call();
      return absl::OkStatus();
    });
  }

  const Bench& bench_;
  nlohmann::json* const figures_;
  double copy_rate_ = 1;
};

double BytesOf(const at::Tensor& tensor) { return static_cast<double>(tensor.nbytes()); }

absl::Status MeasureRowOps(const Bench& bench, const ModelConfig& config, KernelMeter& meter) {
  const int64_t rows = bench.small ? 64 : 16384;
  const at::Tensor residual = at::randn({rows, config.hidden_size}, meter.Options(at::kBFloat16));
  const at::Tensor delta = at::randn_like(residual);
  const at::Tensor weight = at::ones({config.hidden_size}, meter.Options(at::kBFloat16));
  RETURN_IF_ERROR(meter.Measure("rms_norm", 4 * BytesOf(residual),
                                [&] { AddRmsNorm(residual, delta, weight, 1e-5); }));
  const at::Tensor gate_up = at::randn({rows, 2 * config.ffn_size}, meter.Options(at::kBFloat16));
  RETURN_IF_ERROR(meter.Measure("swiglu", 1.5 * BytesOf(gate_up), [&] { Swiglu(gate_up); }));
  const int64_t heads = config.head_count + config.kv_head_count;
  const at::Tensor qk = at::randn({rows, heads * config.head_dim}, meter.Options(at::kBFloat16));
  const at::Tensor angles = at::rand({512, config.head_dim / 2}, meter.Options(at::kFloat));
  const at::Tensor positions = at::arange(rows, meter.Options(at::kLong)).remainder(160);
  const RotaryTable table{at::cos(angles), at::sin(angles)};
  RETURN_IF_ERROR(meter.Measure("rotary", 2 * BytesOf(qk),
                                [&] { RotateInPlace(qk, positions, table, heads); }));
  const Dropout dropout{.probability = 0.05, .seed = 1};
  return meter.Measure("dropout_mask", static_cast<double>(rows * config.hidden_size) / 8, [&] {
    DropoutMask(dropout, {positions, positions}, config.hidden_size);
  });
}

absl::Status MeasureNf4(const Bench& bench, const ModelConfig& config, KernelMeter& meter) {
  const int64_t out = bench.small ? 128 : 2 * config.ffn_size;
  const at::Tensor values =
      at::randn({out, config.hidden_size}, meter.Options(at::kBFloat16)) * 0.02;
  ASSIGN_OR_RETURN(const cuda::DeviceNf4 quantized, cuda::QuantizeNf4(values));
  const at::Tensor decoded = at::empty_like(values);
  return meter.Measure("nf4_decode", static_cast<double>(quantized.bytes()) + BytesOf(decoded),
                       [&] { cuda::DecodeNf4(quantized, decoded); });
}

// What LoRA adds to the product of gate and up, for one adapter and for many.
absl::Status MeasureLora(const Bench& bench, const ModelConfig& config, KernelMeter& meter) {
  const int64_t rows = bench.small ? 64 : 16384;
  const int64_t rank = 16;
  const auto weight = std::make_shared<const ResidentWeight>(
      at::randn({2 * config.ffn_size, config.hidden_size}, meter.Options(at::kBFloat16)));
  const FrozenLinears linears = {
      std::make_shared<const FrozenLinear>(weight, 0, config.ffn_size),
      std::make_shared<const FrozenLinear>(weight, config.ffn_size, config.ffn_size)};
  const at::Tensor x = at::randn({rows, config.hidden_size}, meter.Options(at::kBFloat16));
  const auto part = [&](int64_t linear) {
    return LoraPart{linear,
                    at::randn({rank, config.hidden_size}, meter.Options(at::kBFloat16)),
                    at::randn({config.ffn_size, rank}, meter.Options(at::kBFloat16)),
                    1.0,
                    {}};
  };
  const double bytes = BytesOf(x) + static_cast<double>(rows * 2 * config.ffn_size * 2);
  RETURN_IF_ERROR(meter.Measure("gate_up", bytes, [&] { LoraLinear(x, linears); }));
  for (int64_t adapters : {int64_t{1}, int64_t{64}}) {
    std::vector<LoraSegment> segments;
    for (int64_t a = 0; a < adapters; ++a) {
      segments.push_back({a * rows / adapters, (a + 1) * rows / adapters, {part(0), part(1)}});
    }
    RETURN_IF_ERROR(meter.Measure("gate_up_" + std::to_string(adapters) + "_adapters", bytes,
                                  [&] { LoraLinear(x, linears, segments); }));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status MeasureKernels(const Bench& bench, nlohmann::json* figures) {
  const at::NoGradGuard no_grad;
  const ModelConfig config = BenchModel(bench);
  KernelMeter meter(bench, figures);
  RETURN_IF_ERROR(meter.MeasureCopy());
  RETURN_IF_ERROR(MeasureRowOps(bench, config, meter));
  RETURN_IF_ERROR(MeasureNf4(bench, config, meter));
  return MeasureLora(bench, config, meter);
}

}  // namespace pricer::gpu
