#pragma once

#include <ATen/ATen.h>

#include <cstdint>

namespace pricer {

// Weights of linears that share an input, stacked, on a GPU: resident, or decoded when they are
// asked for. One thread at a time.
class DeviceWeight {
 public:
  explicit DeviceWeight(const at::Tensor& bias) : bias_(bias) {}
  virtual ~DeviceWeight() = default;
  DeviceWeight(const DeviceWeight&) = delete;
  DeviceWeight& operator=(const DeviceWeight&) = delete;

  virtual int64_t in() const = 0;
  // Rows [begin, end) as [rows, in] in the compute dtype, for what the current stream launches
  // until weights of two other layers have been asked for.
  virtual at::Tensor Rows(int64_t begin, int64_t end) const = 0;
  virtual int64_t bytes() const = 0;

  // [all rows], or undefined.
  const at::Tensor& bias() const { return bias_; }

 private:
  const at::Tensor bias_;
};

// A weight that stays as it is.
class ResidentWeight : public DeviceWeight {
 public:
  explicit ResidentWeight(const at::Tensor& weight,               // [out, in]
                          const at::Tensor& bias = at::Tensor())  // [out], or undefined
      : DeviceWeight(bias), weight_(weight) {}

  int64_t in() const override { return weight_.size(1); }
  at::Tensor Rows(int64_t begin, int64_t end) const override {
    return weight_.narrow(0, begin, end - begin);
  }
  int64_t bytes() const override {
    return static_cast<int64_t>(weight_.nbytes() + (bias().defined() ? bias().nbytes() : 0));
  }

 private:
  const at::Tensor weight_;
};

}  // namespace pricer
