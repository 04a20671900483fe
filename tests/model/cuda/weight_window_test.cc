#include "model/layers/weight_window.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "tests/testing/test_gpu.h"

namespace pricer {
namespace {

constexpr int64_t kLayers = 5;

// Layers of two groups of linears: the decoded values beside the weights.
struct Layers {
  std::unique_ptr<WeightWindow> window;
  std::vector<std::vector<std::shared_ptr<const DeviceWeight>>> weights;  // [layer][group]
  std::vector<std::vector<at::Tensor>> decoded;                           // on the CPU
};

cuda::DeviceNf4 RandomNf4(int64_t out, int64_t in, at::Device device) {
  return *cuda::QuantizeNf4((at::randn({out, in}) * 0.1).to(device));
}

Layers MakeLayers(at::Device device) {
  Layers layers;
  layers.window = std::make_unique<WeightWindow>(kLayers, device, at::kBFloat16);
  for (int64_t layer = 0; layer < kLayers; ++layer) {
    layers.weights.emplace_back();
    layers.decoded.emplace_back();
    for (const std::vector<int64_t>& outs : {std::vector<int64_t>{6, 3}, {9 + layer}}) {
      const int64_t in = outs.size() == 2 ? 10 : 7;
      std::vector<cuda::DeviceNf4> linears;
      std::vector<at::Tensor> decoded;
      for (int64_t out : outs) {
        linears.push_back(RandomNf4(out, in, device));
        decoded.push_back(at::empty({out, in}, at::TensorOptions(device).dtype(at::kBFloat16)));
        cuda::DecodeNf4(linears.back(), decoded.back());
      }
      layers.decoded.back().push_back(at::cat(decoded).cpu());
      layers.weights.back().push_back(layers.window->Add(layer, std::move(linears), at::Tensor()));
    }
  }
  return layers;
}

void ExpectLayer(const Layers& layers, int64_t layer) {
  for (size_t group = 0; group < 2; ++group) {
    const at::Tensor& expected = layers.decoded[layer][group];
    const DeviceWeight& weight = *layers.weights[layer][group];
    EXPECT_EQ(weight.in(), expected.size(1));
    EXPECT_TRUE(at::equal(weight.Rows(0, expected.size(0)).cpu(), expected))
        << "layer " << layer << ", group " << group;
    EXPECT_TRUE(at::equal(weight.Rows(2, 5).cpu(), expected.narrow(0, 2, 3)));
  }
}

TEST(WeightWindowTest, GivesEachLayerUpwardsDownwardsAndInAnyOrder) {
  PRICER_ENTER_GPU(gpu);
  const Layers layers = MakeLayers(gpu->device());
  for (int64_t layer = 0; layer < kLayers; ++layer) ExpectLayer(layers, layer);
  for (int64_t layer = kLayers - 1; layer >= 0; --layer) ExpectLayer(layers, layer);
  for (int64_t layer : {3, 0, 4, 4, 1, 2, 0, 1}) ExpectLayer(layers, layer);
}

TEST(WeightWindowTest, TakesTheMemoryOfTwoDecodedLayers) {
  PRICER_ENTER_GPU(gpu);
  const Layers layers = MakeLayers(gpu->device());
  EXPECT_EQ(layers.window->buffer_bytes(), 0);
  for (int64_t layer = 0; layer < kLayers; ++layer) ExpectLayer(layers, layer);
  constexpr int64_t kLargest = 9 * 10 + (9 + kLayers - 1) * 7;
  EXPECT_EQ(layers.window->buffer_bytes(), 2 * kLargest * 2);
  // Half a byte for each value, rounded up; of each of two linears the codes of its blocks, their
  // offset and the map.
  constexpr int64_t kTables = 4 + 256 * 4;
  EXPECT_EQ(layers.weights[0][0]->bytes(), 30 + 15 + 2 * (1 + 4 + kTables));
}

}  // namespace
}  // namespace pricer
