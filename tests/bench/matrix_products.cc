#include "tests/bench/matrix_products.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <utility>
#include <vector>

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

using Layers = std::vector<std::vector<at::Tensor>>;

Layers RandomWeights(const ModelConfig& config, at::ScalarType dtype) {
  Layers layers(std::min(kMaxLayers, config.layer_count));
  for (std::vector<at::Tensor>& layer : layers) {
    for (const std::vector<Projection>& projections : Groups()) {
      int64_t out = 0;
      int64_t in = 0;
      for (Projection projection : projections) {
        const LinearShape shape = ProjectionShape(config, projection);
        out += shape.out;
        in = shape.in;
      }
      layer.push_back(at::randn({out, in}, dtype));
    }
  }
  return layers;
}

// The same memory, projection by projection.
Layers Split(const Layers& fused, const ModelConfig& config) {
  const std::vector<std::vector<Projection>> groups = Groups();
  Layers layers(fused.size());
  for (size_t i = 0; i < fused.size(); ++i) {
    for (size_t g = 0; g < fused[i].size(); ++g) {
      int64_t begin = 0;
      for (Projection projection : groups[g]) {
        const int64_t out = ProjectionShape(config, projection).out;
        layers[i].push_back(fused[i][g].narrow(0, begin, out));
        begin += out;
      }
    }
  }
  return layers;
}

std::vector<std::vector<FrozenLinears>> Pack(const Layers& separate) {
  std::vector<std::vector<FrozenLinears>> layers(separate.size());
  for (size_t i = 0; i < separate.size(); ++i) {
    auto weight = separate[i].begin();
    for (const std::vector<Projection>& projections : Groups()) {
      FrozenLinears group;
      for (size_t p = 0; p < projections.size(); ++p) {
        group.push_back(std::make_shared<const FrozenLinear>(*weight++));
      }
      layers[i].push_back(std::move(group));
    }
  }
  return layers;
}

double RunAll(LinearProducts& products, bool backward) {
  double seconds = 0;
  for (int64_t layer = 0; layer < products.layers(); ++layer) {
    for (const double of_group : products.Run(layer, backward)) seconds += of_group;
  }
  return seconds;
}

}  // namespace

AtenProducts::AtenProducts(Layers layers) : layers_(std::move(layers)) {}

void AtenProducts::SetRows(int64_t rows) {
  buffers_.clear();
  for (const at::Tensor& weight : layers_.front()) {
    const int64_t out = weight.size(0);
    const int64_t in = weight.size(1);
    buffers_.push_back({.x = at::randn({rows, in}, weight.options()),
                        .y = at::zeros({rows, out}, weight.options()),
                        .grad_y = at::randn({rows, out}, weight.options()),
                        .grad_x = at::zeros({rows, in}, weight.options())});
  }
}

double AtenProducts::Run(bool backward) {
  const auto start = std::chrono::steady_clock::now();
  for (const std::vector<at::Tensor>& weights : layers_) {
    for (size_t i = 0; i < weights.size(); ++i) {
      Buffers& b = buffers_[i];
      at::mm_out(b.y, b.x, weights[i].t());
      if (backward) at::mm_out(b.grad_x, b.grad_y, weights[i]);
    }
  }
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

MatrixProducts::MatrixProducts(const ModelConfig& config, at::ScalarType dtype)
    : MatrixProducts(config, RandomWeights(config, dtype)) {}

MatrixProducts::MatrixProducts(const ModelConfig& config, const Layers& weights)
    : fused_(weights), separate_(Split(weights, config)), packed_(Pack(Split(weights, config))) {}

MatrixProducts::Time MatrixProducts::Measure(int64_t tokens, bool backward) {
  if (tokens != tokens_ || backward != backward_) {
    fused_.SetRows(tokens);
    separate_.SetRows(tokens);
    packed_.SetRows(tokens);
    tokens_ = tokens;
    backward_ = backward;
    fused_.Run(backward);
    separate_.Run(backward);
    RunAll(packed_, backward);
  }
  return {.fused_seconds = fused_.Run(backward),
          .separate_seconds = separate_.Run(backward),
          .packed_seconds = RunAll(packed_, backward),
          .flops = packed_.flops(tokens, backward) * static_cast<double>(packed_.layers())};
}

}  // namespace pricer
