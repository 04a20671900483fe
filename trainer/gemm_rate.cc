#include "trainer/gemm_rate.h"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <utility>

#include "model/cuda/device.h"
#include "model/ops/lora_blocks.h"
#include "model/torch_status.h"

namespace pricer {
namespace {

// From there on more rows make no product faster.
constexpr int64_t kMostRows = 2048;
constexpr int64_t kFewestRows = 32;
// Of a layer, to begin with: a tenth of a second of two processor cores. A guess, since small
// products cannot tell on a busy machine, where their threads wait for each other.
constexpr double kLayerFlops = 1e10;
// More rows where a layer takes less than a quarter of that.
constexpr double kLayerSeconds = 0.1;
constexpr double kTrialSeconds = 0.05;
constexpr double kSeconds = 0.6;
// Of all layers; small networks need no more to be timed.
constexpr int64_t kMostRounds = 3;

// Neither random, so that nothing else draws other numbers, nor zero, which may be faster.
at::Tensor Values(int64_t rows, int64_t columns, const at::TensorOptions& options) {
  return at::linspace(-1, 1, rows * columns, options).view({rows, columns});
}

// What the products of a linear are made of.
at::TensorOptions OptionsOf(const FrozenLinear& linear) {
  const DeviceWeight* const weight = linear.device_weight();
  return weight == nullptr ? at::TensorOptions().dtype(linear.transposed().dtype())
                           : weight->Rows(linear.begin(), linear.begin() + 1).options();
}

// Runs layer after layer, two at least, for about `limit_seconds`. Seconds of a layer whose every
// weight takes as long as it did in the fastest one.
double FastestLayer(LinearProducts& products, double limit_seconds) {
  std::vector<double> fastest = products.Run(0, /*backward=*/true);
  double spent = 0;
  for (int64_t i = 1; i < kMostRounds * products.layers() && spent < limit_seconds; ++i) {
    const std::vector<double> seconds = products.Run(i % products.layers(), /*backward=*/true);
    spent += std::accumulate(seconds.begin(), seconds.end(), 0.0);
    for (size_t w = 0; w < seconds.size(); ++w) fastest[w] = std::min(fastest[w], seconds[w]);
  }
  return std::accumulate(fastest.begin(), fastest.end(), 0.0);
}

}  // namespace

void LinearProducts::SetRows(int64_t rows) {
  operands_.clear();
  for (const FrozenLinears& linears : layers_.front()) {
    const at::TensorOptions options = OptionsOf(*linears.front());
    int64_t out = 0;
    for (const auto& linear : linears) out += linear->out();
    operands_.push_back(
        {.x = Values(rows, linears.front()->in(), options), .grad_y = Values(rows, out, options)});
  }
}

double LinearProducts::flops(int64_t rows, bool backward) const {
  double parameters = 0;
  for (const FrozenLinears& linears : layers_.front()) {
    for (const auto& linear : linears) {
      parameters += static_cast<double>(linear->in()) * static_cast<double>(linear->out());
    }
  }
  return (backward ? 4.0 : 2.0) * static_cast<double>(rows) * parameters;
}

std::vector<double> LinearProducts::Run(int64_t layer, bool backward) {
  std::vector<double> seconds;
  for (size_t i = 0; i < operands_.size(); ++i) {
    const auto start = std::chrono::steady_clock::now();
    const FrozenLinears& linears = layers_[layer][i];
    LinearForward(operands_[i].x, linears);
    if (backward) LinearInputGradient(operands_[i].grad_y, linears);
    const absl::Status done = cuda::CheckUsable(operands_[i].x.device());
    TORCH_CHECK(done.ok(), done.message());
    seconds.push_back(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return seconds;
}

absl::StatusOr<double> MeasureGemmRate(const Network& network, int64_t rows) {
  return CatchTorch("timing matrix products", [&]() -> absl::StatusOr<double> {
    LinearProducts products(network.Linears());
    const int64_t most = std::clamp(rows, kFewestRows, kMostRows);
    const double guess = kLayerFlops / products.flops(1, /*backward=*/true);
    int64_t taken =
        std::clamp(static_cast<int64_t>(std::min<double>(kMostRows, guess)), kFewestRows, most);
    products.SetRows(taken);
    while (taken < most && FastestLayer(products, kTrialSeconds) < kLayerSeconds / 4) {
      taken = std::min(4 * taken, most);
      products.SetRows(taken);
    }
    return products.flops(taken, /*backward=*/true) / FastestLayer(products, kSeconds);
  });
}

}  // namespace pricer
