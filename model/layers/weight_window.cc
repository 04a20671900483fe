#include "model/layers/weight_window.h"

#include <algorithm>
#include <utility>

namespace pricer {

// Rows of one layer's buffer.
class WeightWindow::Stacked : public DeviceWeight {
 public:
  Stacked(WeightWindow* window, int64_t layer, int64_t begin, int64_t in, int64_t bytes,
          const at::Tensor& bias)
      : DeviceWeight(bias),
        window_(window),
        layer_(layer),
        begin_(begin),
        in_(in),
        bytes_(bytes + (bias.defined() ? static_cast<int64_t>(bias.nbytes()) : 0)) {}

  int64_t in() const override { return in_; }
  at::Tensor Rows(int64_t begin, int64_t end) const override {
    return window_->Decoded(layer_)
        .narrow(0, begin_ + begin * in_, (end - begin) * in_)
        .view({end - begin, in_});
  }
  int64_t bytes() const override { return bytes_; }

 private:
  WeightWindow* const window_;
  const int64_t layer_;
  const int64_t begin_;  // in the buffer, in elements
  const int64_t in_;
  const int64_t bytes_;
};

WeightWindow::WeightWindow(int64_t layers, at::Device device, at::ScalarType dtype)
    : options_(at::TensorOptions(device).dtype(dtype)), layers_(layers), sizes_(layers, 0) {}

std::shared_ptr<const DeviceWeight> WeightWindow::Add(int64_t layer,
                                                      std::vector<cuda::DeviceNf4> linears,
                                                      const at::Tensor& bias) {
  const MutexLock lock(&mutex_);
  const int64_t begin = sizes_[layer];
  const int64_t in = linears.front().shape[1];
  int64_t bytes = 0;
  for (cuda::DeviceNf4& linear : linears) {
    bytes += linear.bytes();
    const int64_t at = sizes_[layer];
    sizes_[layer] += linear.element_count();
    layers_[layer].push_back({std::move(linear), at});
  }
  return std::make_shared<const Stacked>(this, layer, begin, in, bytes, bias);
}

int64_t WeightWindow::buffer_bytes() const {
  const MutexLock lock(&mutex_);
  int64_t bytes = 0;
  for (const Slot& slot : slots_) {
    if (slot.buffer.defined()) bytes += static_cast<int64_t>(slot.buffer.nbytes());
  }
  return bytes;
}

void WeightWindow::Decode(int64_t layer) {
  Slot& slot = slots_[layer % 2];
  if (!slot.buffer.defined()) {
    slot.buffer = at::empty({*std::max_element(sizes_.begin(), sizes_.end())}, options_);
  }
  // Behind all that the current stream holds, so also behind what read the buffer's last layer.
  slot.fork = stream_->Fork([&] {
    for (const Part& part : layers_[layer]) {
      cuda::DecodeNf4(part.weight, slot.buffer.narrow(0, part.begin, part.weight.element_count()));
    }
  });
  slot.layer = layer;
}

at::Tensor WeightWindow::Decoded(int64_t layer) {
  const MutexLock lock(&mutex_);
  if (stream_ == nullptr) stream_ = cuda::SideStream::Create();
  Slot& slot = slots_[layer % 2];
  if (slot.layer != layer) Decode(layer);
  stream_->Join(slot.fork);
  if (layer != current_) {
    // Upwards from the lowest layer, as a forward pass goes, whatever came before.
    const int64_t next = layer == 0 || layer > current_ ? layer + 1 : layer - 1;
    current_ = layer;
    const bool exists = next >= 0 && next < static_cast<int64_t>(layers_.size());
    if (exists && slots_[next % 2].layer != next) Decode(next);
  }
  return slot.buffer;
}

}  // namespace pricer
