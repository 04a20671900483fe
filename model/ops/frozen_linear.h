#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "model/ops/device_weight.h"
#include "model/ops/matrix_product.h"

namespace pricer {

// A linear layer that is not trained. On a CPU its weight lies in the layout of the products; on a
// GPU it is rows of a DeviceWeight. Thread-safe, but for a DeviceWeight's own limits.
class FrozenLinear {
 public:
  explicit FrozenLinear(const at::Tensor& weight,               // [out, in] fp32 or bf16; copied
                        const at::Tensor& bias = at::Tensor())  // [out] as weight, or undefined
      : in_(weight.size(1)), out_(weight.size(0)), transposed_(weight.t()), bias_(bias) {}
  // Rows [begin, begin + out) of `weight`.
  FrozenLinear(std::shared_ptr<const DeviceWeight> weight, int64_t begin, int64_t out)
      : in_(weight->in()), out_(out), begin_(begin), device_weight_(std::move(weight)) {}

  int64_t in() const { return in_; }
  int64_t out() const { return out_; }

  // On a CPU: W^T [in, out], of y = x W^T.
  const PackedMatrix& transposed() const { return transposed_; }
  // W [out, in], of dx = dy W. Made when it is first asked for: only training needs it.
  const PackedMatrix& straight() const;
  const at::Tensor& bias() const { return bias_; }

  // On a GPU: which rows of which weight; else null.
  const DeviceWeight* device_weight() const { return device_weight_.get(); }
  int64_t begin() const { return begin_; }

  // On a CPU, without what training needs. A DeviceWeight's are its own.
  int64_t bytes() const {
    return transposed_.bytes() + (bias_.defined() ? static_cast<int64_t>(bias_.nbytes()) : 0);
  }

 private:
  const int64_t in_;
  const int64_t out_;
  const int64_t begin_ = 0;
  const std::shared_ptr<const DeviceWeight> device_weight_;
  const PackedMatrix transposed_;
  const at::Tensor bias_;
  mutable std::once_flag once_;
  mutable PackedMatrix straight_;
};

// Linears that share their input, outputs side by side.
using FrozenLinears = std::vector<std::shared_ptr<const FrozenLinear>>;

}  // namespace pricer
