#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

#include "model/model_config.h"
#include "trainer/gemm_rate.h"

namespace pricer {

// The products of a decoder's linear layers alone, with random weights of the network's shapes, of
// enough layers that they come from memory as the network's do. One thread.
class MatrixProducts {
 public:
  MatrixProducts(const ModelConfig& config, at::ScalarType dtype);

  struct Time {
    // Projections that share an input as one product (q, k, v and gate, up), as the network has
    // them, or one by one.
    double fused_seconds = 0;
    double separate_seconds = 0;
    double flops = 0;  // of either
  };

  // Times x W^T of every projection for `tokens` rows and, with `backward`, G W as well. The first
  // call with other arguments than the last one's warms up first.
  Time Measure(int64_t tokens, bool backward);

 private:
  MatrixProducts(const ModelConfig& config, const std::vector<std::vector<at::Tensor>>& weights);

  LinearProducts fused_;
  LinearProducts separate_;
  int64_t tokens_ = 0;
  bool backward_ = false;
};

}  // namespace pricer
