#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/checkpoint.h"
#include "model/layers/device_linear.h"
#include "model/layers/weight_window.h"
#include "model/lora.h"
#include "model/model_config.h"
#include "model/ops/dropout.h"
#include "model/ops/frozen_linear.h"
#include "model/ops/lora_linear.h"
#include "model/weights.h"

namespace pricer {

// Rows [begin, end) of an activation belong to sequences that use this adapter.
struct AdapterSegment {
  int64_t begin = 0;
  int64_t end = 0;
  const AdapterWeights* adapter = nullptr;  // never null
};

// The rows of an activation: who owns them, and the dropout of a training step.
struct AdapterRows {
  std::vector<AdapterSegment> segments;
  Dropout dropout;   // but for the module
  DropoutRows rows;  // of all rows, where there is dropout
};

// Linears of one decoder layer that share their input; each may carry the LoRA of several adapters,
// each on its segment of rows.
class LinearGroup {
 public:
  // DataLoss or InvalidArgument name file and tensor. On a GPU, what stays in NF4 goes into
  // `window`, which must outlive the group; null where nothing does.
  static absl::StatusOr<LinearGroup> Load(const Checkpoint& checkpoint,
                                          const NetworkOptions& options, int64_t layer,
                                          std::vector<Projection> projections,
                                          WeightWindow* window);

  // Outputs of `count` projections from `first` on, side by side.
  at::Tensor Forward(const at::Tensor& x,  // [T, in]
                     const AdapterRows& rows, int first, int count,
                     const InputSource& source = {}) const;  // LoraLinear's
  at::Tensor Forward(const at::Tensor& x, const AdapterRows& rows,
                     const InputSource& source = {}) const {
    return Forward(x, rows, 0, static_cast<int>(projections_.size()), source);
  }

  const FrozenLinears& linears() const { return linears_; }  // of the projections
  int64_t bytes() const;

  // Of random weights, on a GPU: for measuring.
  static absl::StatusOr<LinearGroup> Random(const ModelConfig& config,
                                            const NetworkOptions& options, int64_t layer,
                                            std::vector<Projection> projections,
                                            WeightWindow* window);

 private:
  absl::Status LoadOnDevice(const Checkpoint& checkpoint, const NetworkOptions& options,
                            WeightWindow* window);
  // Stacks the projections' weights in `window`, or decoded where one is not in NF4 or it is null.
  void StackOnDevice(std::vector<DeviceLinear> linears, const at::Tensor& bias,
                     const NetworkOptions& options, WeightWindow* window);

  int64_t layer_ = 0;
  std::vector<Projection> projections_;
  FrozenLinears linears_;
};

}  // namespace pricer
