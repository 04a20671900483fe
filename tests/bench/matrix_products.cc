#include "tests/bench/matrix_products.h"

#include <algorithm>
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

double RunAll(LinearProducts& products, bool backward) {
  double seconds = 0;
  for (int64_t layer = 0; layer < products.layers(); ++layer) {
    for (const double of_weight : products.Run(layer, backward)) seconds += of_weight;
  }
  return seconds;
}

}  // namespace

MatrixProducts::MatrixProducts(const ModelConfig& config, at::ScalarType dtype)
    : MatrixProducts(config, RandomWeights(config, dtype)) {}

MatrixProducts::MatrixProducts(const ModelConfig& config, const Layers& weights)
    : fused_(weights), separate_(Split(weights, config)) {}

MatrixProducts::Time MatrixProducts::Measure(int64_t tokens, bool backward) {
  if (tokens != tokens_ || backward != backward_) {
    fused_.SetRows(tokens);
    separate_.SetRows(tokens);
    tokens_ = tokens;
    backward_ = backward;
    RunAll(fused_, backward);
    RunAll(separate_, backward);
  }
  return {.fused_seconds = RunAll(fused_, backward),
          .separate_seconds = RunAll(separate_, backward),
          .flops = fused_.flops(tokens, backward) * static_cast<double>(fused_.layers())};
}

}  // namespace pricer
