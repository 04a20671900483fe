#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

#include "model/model_config.h"
#include "trainer/gemm_rate.h"

namespace pricer {

// Products by ATen of weights [out, in] that lie as in a checkpoint, written into memory that stays
// allocated.
class AtenProducts {
 public:
  // Of each layer its weights; all layers have the same shapes.
  explicit AtenProducts(std::vector<std::vector<at::Tensor>> layers);
  void SetRows(int64_t rows);
  // Seconds of x W^T of every weight of every layer and, with `backward`, of G W as well.
  double Run(bool backward);

 private:
  // What the products of one weight read and write; all layers share it.
  struct Buffers {
    at::Tensor x;       // [rows, in]
    at::Tensor y;       // [rows, out]
    at::Tensor grad_y;  // [rows, out]
    at::Tensor grad_x;  // [rows, in]
  };

  std::vector<std::vector<at::Tensor>> layers_;
  std::vector<Buffers> buffers_;  // one for each weight of a layer
};

// The products of a decoder's linear layers alone, with random weights of the network's shapes, of
// enough layers that they come from memory as the network's do. One thread.
class MatrixProducts {
 public:
  MatrixProducts(const ModelConfig& config, at::ScalarType dtype);

  struct Time {
    // By ATen, projections that share an input as one product (q, k, v and gate, up), or one by
    // one.
    double fused_seconds = 0;
    double separate_seconds = 0;
    // As the network makes them, of packed weights.
    double packed_seconds = 0;
    double flops = 0;  // of each
  };

  // Times x W^T of every projection for `tokens` rows and, with `backward`, G W as well. The first
  // call with other arguments than the last one's warms up first.
  Time Measure(int64_t tokens, bool backward);

 private:
  MatrixProducts(const ModelConfig& config, const std::vector<std::vector<at::Tensor>>& weights);

  AtenProducts fused_;
  AtenProducts separate_;
  LinearProducts packed_;
  int64_t tokens_ = 0;
  bool backward_ = false;
};

}  // namespace pricer
