#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

#include "model/model_config.h"

namespace pricer {

// The matrix products of a decoder's frozen linear layers and nothing else: what their rate is, no
// network can exceed. Random weights of the network's shapes, of enough layers that they come from
// memory as the network's do. One thread (the products use ATen's intra-op threads).
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

  // Times x W^T of every projection for `tokens` rows and, with `backward`, G W as well. Outputs
  // are written into memory that stays allocated. The first call with other arguments than the last
  // one's warms up first.
  Time Measure(int64_t tokens, bool backward);

 private:
  // Projections that share an input, as rows of one weight.
  struct Group {
    at::Tensor weight;               // [sum of out, in]
    std::vector<at::Tensor> splits;  // its parts [out, in]
  };
  // What the products of one group read and write; all layers share it.
  struct Buffers {
    at::Tensor x;       // [T, in]
    at::Tensor y;       // [T, sum of out]
    at::Tensor grad_y;  // [T, sum of out]
    at::Tensor grad_x;  // [T, in]
    std::vector<at::Tensor> split_y, split_grad_y;
  };

  void Allocate(int64_t tokens);
  void RunFused(bool backward);
  void RunSeparate(bool backward);

  at::TensorOptions options_;
  std::vector<std::vector<Group>> layers_;
  std::vector<Buffers> buffers_;  // one for each group of a layer
  int64_t tokens_ = 0;
  bool backward_ = false;
};

}  // namespace pricer
