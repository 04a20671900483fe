#pragma once

#include <ATen/ATen.h>

#include <cstdint>

#include "model/ops/dropout.h"

// DropoutMask on either device: fills mask [T, ceil(channels / 32)].

namespace pricer::cpu {
void FillDropoutMask(const DropoutRowKey& key, const DropoutRows& rows, int64_t channels,
                     const at::Tensor& mask);
}  // namespace pricer::cpu

namespace pricer::cuda {
void FillDropoutMask(const DropoutRowKey& key, const DropoutRows& rows, int64_t channels,
                     const at::Tensor& mask);
}  // namespace pricer::cuda
