#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "model/network.h"
#include "model/ops/frozen_linear.h"

namespace pricer {

// The matrix products of frozen linear layers and nothing else: what their rate is, no network can
// exceed. One thread (the products use ATen's intra-op threads).
class LinearProducts {
 public:
  // Of each layer its linears, those that share an input together; all layers have the same shapes.
  explicit LinearProducts(std::vector<std::vector<FrozenLinears>> layers)
      : layers_(std::move(layers)) {}

  // The rows of what is multiplied. To be called before Run.
  void SetRows(int64_t rows);

  int64_t layers() const { return static_cast<int64_t>(layers_.size()); }
  // Of one layer: x W^T of every linear and, with `backward`, G W as well.
  double flops(int64_t rows, bool backward) const;
  // Makes them. Seconds that those of the linears that share an input took.
  std::vector<double> Run(int64_t layer, bool backward);

 private:
  // What linears that share an input read; all layers share it.
  struct Operands {
    at::Tensor x;       // [rows, in]
    at::Tensor grad_y;  // [rows, out]
  };

  std::vector<std::vector<FrozenLinears>> layers_;
  std::vector<Operands> operands_;
};

// What the network's own matrix products reach alone, in floating-point operations a second: those
// of the frozen linears in a training step's forward and backward pass, with their weights and
// dtype, for micro-batches of `rows` tokens (fewer where those would take too long). Each product
// counts as fast as it was in the fastest layer, since whatever else the machine does can only slow
// it down. Takes up to about a second; draws no random numbers and leaves nothing changed.
// REQUIRES: rows >= 1.
absl::StatusOr<double> MeasureGemmRate(const Network& network, int64_t rows);

}  // namespace pricer
