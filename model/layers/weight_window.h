#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "base/mutex.h"
#include "model/cuda/device.h"
#include "model/ops/device_nf4.h"
#include "model/ops/device_weight.h"

namespace pricer {

// Decoder layers whose linears stay in NF4 on a GPU and are decoded ahead of use, into two buffers
// by turns: while a layer is computed the next one is decoded on a side stream, in the order in
// which the layers are asked for, upwards or downwards. So all of it takes the memory of NF4 and of
// two decoded layers. Layers may be added in parallel; afterwards one thread at a time.
class WeightWindow {
 public:
  WeightWindow(int64_t layers, at::Device device, at::ScalarType dtype);

  // Adds to a layer the stacked rows of linears that share an input, in their order, with what they
  // add (undefined for none). The window must outlive the weight.
  std::shared_ptr<const DeviceWeight> Add(int64_t layer, std::vector<cuda::DeviceNf4> linears,
                                          const at::Tensor& bias) ABSL_LOCKS_EXCLUDED(mutex_);

  // Of the decoded layers; nothing before the first is asked for.
  int64_t buffer_bytes() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  class Stacked;
  struct Part {
    cuda::DeviceNf4 weight;
    int64_t begin = 0;  // in the layer's buffer, in elements
  };
  struct Slot {
    at::Tensor buffer;  // [elements of the largest layer]
    int64_t layer = -1;
    int64_t fork = 0;  // of the side stream, that decodes it
  };

  // The layer's buffer, decoded as far as the current stream is concerned.
  at::Tensor Decoded(int64_t layer) ABSL_LOCKS_EXCLUDED(mutex_);
  void Decode(int64_t layer) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const at::TensorOptions options_;
  mutable Mutex mutex_;
  std::vector<std::vector<Part>> layers_ ABSL_GUARDED_BY(mutex_);
  std::vector<int64_t> sizes_ ABSL_GUARDED_BY(mutex_);  // of the layers, in elements
  std::unique_ptr<cuda::SideStream> stream_ ABSL_GUARDED_BY(mutex_);
  Slot slots_[2] ABSL_GUARDED_BY(mutex_);
  int64_t current_ ABSL_GUARDED_BY(mutex_) = -1;  // the layer asked for last
};

}  // namespace pricer
