#pragma once

#include <ATen/ATen.h>

#include <cstdint>

#include "model/ops/dropout_bits.h"

namespace pricer {

// Which row of the training data each row of an activation comes from, and its position there.
struct DropoutRows {
  at::Tensor row;       // [T] int64
  at::Tensor position;  // [T] int64
};

// Dropout of one linear's input in one training step: an element is kept, times 1 / (1 - p), with
// probability 1 - p, to 2^-24. Whether it is follows from seed, module, step, row, position and
// channel alone (Philox4x32-10: key (seed, module), counter (step, row, position, channel / 4)), so
// that it is the same however a batch is packed.
struct Dropout {
  double probability = 0;  // in [0, 1); 0 = none
  uint64_t seed = 0;       // its halves are folded by exclusive or
  int64_t module = 0;
  int64_t step = 0;
};

// What all rows of a mask share: key, threshold and the step in counter[0].
DropoutRowKey DropoutKeyOf(const Dropout& dropout);

// Which of `channels` elements of every row are kept: [T, ceil(channels / 32)] int32, bit c % 32 of
// word c / 32 for channel c.
at::Tensor DropoutMask(const Dropout& dropout, const DropoutRows& rows, int64_t channels);

// The factor of what is kept: 1 / (1 - p).
inline double DropoutScale(const Dropout& dropout) { return 1.0 / (1.0 - dropout.probability); }

}  // namespace pricer
