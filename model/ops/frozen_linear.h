#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "model/ops/matrix_product.h"

namespace pricer {

// A linear layer that is not trained, its weight in the layout of the products. Thread-safe.
class FrozenLinear {
 public:
  explicit FrozenLinear(const at::Tensor& weight,               // [out, in] fp32 or bf16; copied
                        const at::Tensor& bias = at::Tensor())  // [out] as weight, or undefined
      : transposed_(weight.t()), bias_(bias) {}

  int64_t in() const { return transposed_.rows(); }
  int64_t out() const { return transposed_.columns(); }
  // W^T [in, out], of y = x W^T.
  const PackedMatrix& transposed() const { return transposed_; }
  // W [out, in], of dx = dy W. Made when it is first asked for: only training needs it.
  const PackedMatrix& straight() const;
  const at::Tensor& bias() const { return bias_; }

  // Without what training needs.
  int64_t bytes() const {
    return transposed_.bytes() + (bias_.defined() ? static_cast<int64_t>(bias_.nbytes()) : 0);
  }

 private:
  const PackedMatrix transposed_;
  const at::Tensor bias_;
  mutable std::once_flag once_;
  mutable PackedMatrix straight_;
};

// Linears that share their input, outputs side by side.
using FrozenLinears = std::vector<std::shared_ptr<const FrozenLinear>>;

}  // namespace pricer
