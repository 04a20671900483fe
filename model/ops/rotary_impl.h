#pragma once

#include <ATen/ATen.h>

#include <cstdint>

#include "model/ops/rotary.h"

// RotateInPlace on either device, of rows that hold the heads.

namespace pricer::cpu {
void RotateInPlace(const at::Tensor& rows, const at::Tensor& positions, const RotaryTable& table,
                   int64_t heads, bool inverse);
}  // namespace pricer::cpu

namespace pricer::cuda {
void RotateInPlace(const at::Tensor& rows, const at::Tensor& positions, const RotaryTable& table,
                   int64_t heads, bool inverse);
}  // namespace pricer::cuda
