#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "model/network.h"

namespace pricer {

// The matrix products of frozen linear layers and nothing else: what their rate is, no network can
// exceed. Outputs are written into memory that stays allocated. One thread (the products use ATen's
// intra-op threads).
class LinearProducts {
 public:
  // Of each layer its weights [out, in]; all layers have the same shapes.
  explicit LinearProducts(std::vector<std::vector<at::Tensor>> layers);

  // The rows of what is multiplied. To be called before Run.
  void SetRows(int64_t rows);

  int64_t layers() const { return static_cast<int64_t>(layers_.size()); }
  // Of one layer: x W^T of every weight and, with `backward`, G W as well.
  double flops(int64_t rows, bool backward) const;
  // Makes them. Seconds that those of each weight took.
  std::vector<double> Run(int64_t layer, bool backward);

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

// What the network's own matrix products reach alone, in floating-point operations a second: those
// of the frozen linears in a training step's forward and backward pass, with their weights and
// dtype, for micro-batches of `rows` tokens (fewer where those would take too long). Each product
// counts as fast as it was in the fastest layer, since whatever else the machine does can only slow
// it down. Takes up to about a second; draws no random numbers and leaves nothing changed.
// REQUIRES: rows >= 1.
absl::StatusOr<double> MeasureGemmRate(const Network& network, int64_t rows);

}  // namespace pricer
