#include "tests/gpu/speed.h"

#include <algorithm>
#include <chrono>

#include "base/status_macros.h"
#include "model/cuda/device.h"

namespace pricer::gpu {
namespace {

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

absl::StatusOr<double> ProductSeconds(const Bench& bench, int64_t m, int64_t n, int64_t k) {
  const auto options = at::TensorOptions(bench.device).dtype(at::kBFloat16);
  const at::Tensor a = at::randn({m, k}, options);
  const at::Tensor b = at::randn({n, k}, options);
  at::Tensor out = at::empty({m, n}, options);
  return MedianSeconds(bench, bench.part_seconds / 20, [&] {
    at::mm_out(out, a, b.t());
    return absl::OkStatus();
  });
}

}  // namespace

absl::StatusOr<double> MedianSeconds(const Bench& bench, double seconds,
                                     const std::function<absl::Status()>& call) {
  constexpr size_t kFewest = 3;
  RETURN_IF_ERROR(call());
  RETURN_IF_ERROR(cuda::CheckUsable(bench.device));
  std::vector<double> taken;
  const double end = Now() + (bench.small ? 0 : seconds);
  while (taken.size() < kFewest || Now() < end) {
    const double start = Now();
    RETURN_IF_ERROR(call());
    RETURN_IF_ERROR(cuda::CheckUsable(bench.device));
    taken.push_back(Now() - start);
  }
  std::nth_element(taken.begin(), taken.begin() + taken.size() / 2, taken.end());
  return taken[taken.size() / 2];
}

absl::StatusOr<double> MatmulRate(const Bench& bench) {
  const int64_t size = bench.small ? 64 : 8192;
  ASSIGN_OR_RETURN(const double seconds, ProductSeconds(bench, size, size, size));
  const auto n = static_cast<double>(size);
  return 2 * n * n * n / seconds;
}

ModelConfig BenchModel(const Bench& bench) {
  ModelConfig config;
  config.vocabulary_size = bench.small ? 512 : 128256;
  config.hidden_size = bench.small ? 128 : 4096;
  config.layer_count = bench.small ? 2 : 32;
  config.head_count = bench.small ? 4 : 32;
  config.kv_head_count = bench.small ? 2 : 8;
  config.head_dim = bench.small ? 32 : 128;
  config.ffn_size = bench.small ? 256 : 14336;
  config.context_tokens = 8192;
  config.rms_norm_epsilon = 1e-5;
  config.rope.theta = 500000;
  return config;
}

std::vector<std::vector<int32_t>> RandomPrompts(const ModelConfig& config, int64_t count,
                                                int64_t tokens) {
  const at::Tensor ids = at::randint(config.vocabulary_size, {count, tokens}, at::kInt);
  std::vector<std::vector<int32_t>> prompts;
  for (int64_t i = 0; i < count; ++i) {
    const int32_t* const row = ids.const_data_ptr<int32_t>() + i * tokens;
    prompts.emplace_back(row, row + tokens);
  }
  return prompts;
}

// The products of one layer, at a full batch.
absl::Status MeasureMatmul(const Bench& bench, nlohmann::json* figures) {
  ASSIGN_OR_RETURN(const double rate, MatmulRate(bench));
  (*figures)["tflops"] = rate / 1e12;
  const ModelConfig config = BenchModel(bench);
  const int64_t rows = bench.small ? 64 : 16384;
  const int64_t h = config.hidden_size;
  const int64_t kv = config.kv_head_count * config.head_dim;
  struct Shape {
    const char* name;
    int64_t out, in;
  };
  double flops = 0;
  double seconds = 0;
  for (const Shape& shape :
       {Shape{"qkv", h + 2 * kv, h}, Shape{"o", h, h}, Shape{"gate_up", 2 * config.ffn_size, h},
        Shape{"down", h, config.ffn_size}}) {
    ASSIGN_OR_RETURN(const double taken, ProductSeconds(bench, rows, shape.out, shape.in));
    const double of_shape = 2.0 * static_cast<double>(rows) * static_cast<double>(shape.out) *
                            static_cast<double>(shape.in);
    (*figures)["tflops_" + std::string(shape.name)] = of_shape / taken / 1e12;
    flops += of_shape;
    seconds += taken;
  }
  (*figures)["tflops_layer"] = flops / seconds / 1e12;
  return absl::OkStatus();
}

}  // namespace pricer::gpu
