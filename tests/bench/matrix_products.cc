#include "tests/bench/matrix_products.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <utility>

namespace pricer {
namespace {

// In fp32, ten layers of the smallest supported models are several times the last-level cache.
constexpr int64_t kMaxLayers = 10;

// Projections that share an input.
std::vector<std::vector<Projection>> Groups() {
  return {{Projection::kQ, Projection::kK, Projection::kV},
          {Projection::kO},
          {Projection::kGate, Projection::kUp},
          {Projection::kDown}};
}

double Seconds(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

MatrixProducts::MatrixProducts(const ModelConfig& config, at::ScalarType dtype)
    : options_(at::TensorOptions().dtype(dtype)) {
  layers_.resize(std::min(kMaxLayers, config.layer_count));
  for (std::vector<Group>& layer : layers_) {
    for (const std::vector<Projection>& projections : Groups()) {
      std::vector<int64_t> outs;
      int64_t in = 0;
      for (Projection projection : projections) {
        const LinearShape shape = ProjectionShape(config, projection);
        outs.push_back(shape.out);
        in = shape.in;
      }
      Group group;
      int64_t rows = 0;
      for (int64_t out : outs) rows += out;
      group.weight = at::randn({rows, in}, options_);
      group.splits = group.weight.split_with_sizes(outs);
      layer.push_back(std::move(group));
    }
  }
}

MatrixProducts::Time MatrixProducts::Measure(int64_t tokens, bool backward) {
  if (tokens != tokens_ || backward != backward_) {
    Allocate(tokens);
    backward_ = backward;
    RunFused(backward);
    RunSeparate(backward);
  }
  Time time;
  time.fused_seconds = Seconds([&]() { RunFused(backward); });
  time.separate_seconds = Seconds([&]() { RunSeparate(backward); });
  for (const std::vector<Group>& layer : layers_) {
    for (const Group& group : layer) {
      time.flops += 2.0 * static_cast<double>(tokens * group.weight.numel() * (backward ? 2 : 1));
    }
  }
  return time;
}

void MatrixProducts::Allocate(int64_t tokens) {
  tokens_ = tokens;
  buffers_.clear();
  for (const Group& group : layers_.front()) {
    const int64_t out = group.weight.size(0);
    const int64_t in = group.weight.size(1);
    Buffers buffers{.x = at::randn({tokens, in}, options_),
                    .y = at::zeros({tokens, out}, options_),
                    .grad_y = at::randn({tokens, out}, options_),
                    .grad_x = at::zeros({tokens, in}, options_),
                    .split_y = {},
                    .split_grad_y = {}};
    for (const at::Tensor& split : group.splits) {
      buffers.split_y.push_back(at::zeros({tokens, split.size(0)}, options_));
      buffers.split_grad_y.push_back(at::randn({tokens, split.size(0)}, options_));
    }
    buffers_.push_back(std::move(buffers));
  }
}

void MatrixProducts::RunFused(bool backward) {
  for (const std::vector<Group>& layer : layers_) {
    for (size_t g = 0; g < layer.size(); ++g) {
      Buffers& b = buffers_[g];
      at::mm_out(b.y, b.x, layer[g].weight.t());
      if (backward) at::mm_out(b.grad_x, b.grad_y, layer[g].weight);
    }
  }
}

void MatrixProducts::RunSeparate(bool backward) {
  for (const std::vector<Group>& layer : layers_) {
    for (size_t g = 0; g < layer.size(); ++g) {
      Buffers& b = buffers_[g];
      for (size_t s = 0; s < layer[g].splits.size(); ++s) {
        const at::Tensor& weight = layer[g].splits[s];
        at::mm_out(b.split_y[s], b.x, weight.t());
        if (backward) at::mm_out(b.grad_x, b.split_grad_y[s], weight);
      }
    }
  }
}

}  // namespace pricer
